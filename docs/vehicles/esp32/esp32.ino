// A vehicle for an ESP32: it obeys what an operator sends through an Image Streamer, and stands still whenever that may come
// too late.
//
// Two motors at an H-bridge (DRV8833, or an L298N with both enable jumpers set), two PWM pins each. Plain HTTP. A Twist drives,
// STOP stops, other texts are shown on the serial line; binary commands are not understood. Needs version 2.0.2 of the
// ESP32 core or a newer one, and no library.
//
// Nothing here stops the motors where this program itself hangs: for that, take a bridge with a watchdog of its own.

#include <WiFi.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

const char WIFI_NAME[] = "my network";
const char WIFI_PASSWORD[] = "my password";
const char SERVER_HOST[] = "192.168.1.10";
const uint16_t SERVER_PORT = 3000;
const char SERVER_PATH[] = "/control/car";
// Where the server has users: "Authorization: Bearer KEY\r\n".
const char AUTHORIZATION[] = "";

// The pins of each motor: forwards, backwards.
const uint8_t LEFT_PINS[] = {25, 26};
const uint8_t RIGHT_PINS[] = {32, 33};
// The speed of a wheel at full power, in m/s, and how far the left wheels are from the right ones, in m.
const float FULL_SPEED = 1.0f;
const float TRACK = 0.2f;
const int FULL_POWER = 255;

// Where the newest word from the server was sent so long ago, the vehicle stops by itself. The server stops it when it has heard
// nothing of an operator for as long.
const uint32_t LEASE_MS = 250;
// In so long the vehicle's clock may get ahead of the server's by a millisecond.
const uint32_t DRIFT_MS = 1000;
// Before it connects anew.
const uint32_t PAUSE_MS = 250;
// How long connecting may take. The vehicle stands meanwhile.
const int32_t CONNECTING_MS = 3000;
// Before it asks for the Wi-Fi anew. By itself the ESP32 does so only after some kinds of loss.
const uint32_t WIFI_PAUSE_MS = 10000;
// The longest line, and the longest command, in bytes. Longer ones are not obeyed.
const size_t MAX_LINE = 512;
const size_t MAX_COMMAND = 512;
// How much is read at once.
const size_t MAX_READ = 4096;
const size_t MAX_REQUEST = 512;

// Bytes of a text, up to a bound. What is longer is cut off, and known to be.
template <size_t MAX> struct Text {
  char bytes[MAX + 1];
  size_t length;
  bool isTooLong;

  void clear() {
    bytes[0] = '\0';
    length = 0;
    isTooLong = false;
  }

  void add(char byte) {
    if (length == MAX) {
      isTooLong = true;
      return;
    }
    bytes[length++] = byte;
    bytes[length] = '\0';
  }

  bool isEmpty() const {
    return length == 0 && !isTooLong;
  }

  // What follows this beginning; nullptr where it begins otherwise.
  const char *after(const char *beginning) const {
    const size_t skipped = strlen(beginning);
    return strncmp(bytes, beginning, skipped) == 0 ? bytes + skipped : nullptr;
  }
};

enum class State { AWAY, HEAD, EVENTS };

WiFiClient client;
State state = State::AWAY;
// When the connection was lost, and when the Wi-Fi was last asked for.
uint32_t awayMs, wifiMs;
// When the server began to count, or before that: it does when it answers, so not before it was asked.
uint32_t startMs;
// When the newest word from the server was sent, by its count, and up to when `startMs` has been corrected.
uint32_t sentMs, correctedMs;
Text<MAX_LINE> line;
// The data of an event, its lines joined.
Text<MAX_COMMAND> command;
bool isAnswered, isStream, isBinary, hasData, hasStamp;

void setMotor(const uint8_t pins[2], float speed) {
  const float part = fmaxf(-1.0f, fminf(1.0f, speed / FULL_SPEED));
  const int power = (int)lroundf(part * FULL_POWER);
  analogWrite(pins[0], power > 0 ? power : 0);
  analogWrite(pins[1], power < 0 ? -power : 0);
}

// x in metres and z in radians a second, to the left.
void drive(float x, float z, const char *why) {
  setMotor(LEFT_PINS, x - z * TRACK / 2);
  setMotor(RIGHT_PINS, x + z * TRACK / 2);
  // Not all at once: for more than 64 bytes printf takes memory from the heap.
  Serial.printf("drive %.2f %.2f ", x, z);
  Serial.println(why);
}

// Stops, and closes the connection: what waits in it unread goes with it.
void giveUp(const char *why) {
  drive(0, 0, why);
  client.stop();
  state = State::AWAY;
  awayMs = millis();
}

// Whether the newest word may have been sent longer than the lease ago, wherever it was since.
bool isLate() {
  return millis() - startMs - sentMs > LEASE_MS;
}

// Learns when the newest word was sent.
void takeStamp(uint32_t stampMs) {
  sentMs = stampMs;
  const uint32_t driftMs = (sentMs - correctedMs) / DRIFT_MS;
  startMs += driftMs;
  correctedMs += driftMs * DRIFT_MS;
  // Nothing comes before it was sent.
  const uint32_t latestMs = millis() - sentMs;
  if ((int32_t)(latestMs - startMs) < 0) {
    startMs = latestMs;
  }
}

const char *skipBlanks(const char *at) {
  return at + strspn(at, " \t\n");
}

// The number of `key` in the object of `name`: {"name": {"key": 0.5}}. Both with their quotes.
bool findNumber(const char *json, const char *name, const char *key, float *number) {
  const char *object = strstr(json, name);
  if (object == nullptr) {
    return false;
  }
  object = skipBlanks(object + strlen(name));
  if (*object != ':') {
    return false;
  }
  object = skipBlanks(object + 1);
  const char *at = *object == '{' ? strstr(object, key) : nullptr;
  const char *end = strchr(object, '}');
  if (at == nullptr || end == nullptr || at > end) {
    return false;
  }
  at = skipBlanks(at + strlen(key));
  if (*at != ':') {
    return false;
  }
  at = skipBlanks(at + 1);
  char *after;
  *number = strtof(at, &after);
  return after != at && isfinite(*number);
}

void obey() {
  const bool isStop = strcmp(command.bytes, "STOP") == 0;
  float x = 0, z = 0;
  const bool isTwist = findNumber(command.bytes, "\"linear\"", "\"x\"", &x) &&
                       findNumber(command.bytes, "\"angular\"", "\"z\"", &z);
  // The last look at the clock, after all other work.
  if (isLate()) {
    giveUp("what has come may be too old");
  } else if (isStop) {
    drive(0, 0, command.bytes);
  } else if (isTwist) {
    drive(x, z, command.bytes);
  } else {
    Serial.print("command ");
    Serial.println(command.bytes);
  }
}

void clearEvent() {
  command.clear();
  isBinary = hasData = hasStamp = false;
}

void takeHeadLine() {
  if (!isAnswered) {
    isAnswered = true;
    const char *status = line.after("HTTP/1.");
    // The digit after it may be either.
    const int code = status != nullptr && status[0] != '\0' ? atoi(status + 1) : 0;
    if (code != 200) {
      char why[32];
      snprintf(why, sizeof why, "HTTP status %d", code);
      giveUp(why);
    }
  } else if (line.isEmpty()) {
    if (isStream) {
      state = State::EVENTS;
    } else {
      giveUp("this is no stream of events");
    }
  } else if (strncasecmp(line.bytes, "content-type: text/event-stream", 31) == 0) {
    isStream = true;
  }
}

void takeEventLine() {
  if (line.isEmpty()) {
    if (hasStamp && hasData && !isBinary && !command.isTooLong) {
      obey();
    }
    clearEvent();
  } else if (line.bytes[0] == ':') {
    // It goes around after 49 days, as the clock does.
    takeStamp((uint32_t)strtoull(line.bytes + 1, nullptr, 10));
    hasStamp = true;
  } else if (line.after("event: binary") != nullptr) {
    isBinary = true;
  } else if (const char *data = line.after("data: ")) {
    if (hasData) {
      // In JSON a line feed means no more than a blank.
      command.add(' ');
    }
    hasData = true;
    while (*data != '\0') {
      command.add(*data++);
    }
    command.isTooLong |= line.isTooLong;
  }
}

void take(char byte) {
  if (byte == '\n') {
    if (state == State::HEAD) {
      takeHeadLine();
    } else {
      takeEventLine();
    }
    line.clear();
  } else if (byte == '\0') {
    // It would end the text for whoever looks at it.
    line.isTooLong = true;
  } else if (byte != '\r') {
    line.add(byte);
  }
}

void listen() {
  // Frozen, silent or behind: what may be there now is not even read.
  if (isLate()) {
    return giveUp("nothing has come in time");
  }
  static uint8_t bytes[MAX_READ];
  const int waiting = client.available();
  if (waiting <= 0) {
    if (!client.connected()) {
      giveUp("the connection was closed");
    }
    return;
  }
  const int count = client.read(bytes, (size_t)waiting < MAX_READ ? (size_t)waiting : MAX_READ);
  for (int at = 0; at < count && state != State::AWAY; at++) {
    take((char)bytes[at]);
  }
}

void connectToServer() {
  char request[MAX_REQUEST];
  const int length = snprintf(request, sizeof request,
                              "GET %s?lease=%u&stop=STOP HTTP/1.0\r\nHost: %s:%u\r\n%s\r\n", SERVER_PATH,
                              (unsigned)LEASE_MS, SERVER_HOST, (unsigned)SERVER_PORT, AUTHORIZATION);
  if (length < 0 || (size_t)length >= sizeof request) {
    return giveUp("MAX_REQUEST is too small");
  }
  if (!client.connect(SERVER_HOST, SERVER_PORT, CONNECTING_MS)) {
    return giveUp("no connection");
  }
  client.setNoDelay(true);
  line.clear();
  clearEvent();
  isAnswered = isStream = false;
  state = State::HEAD;
  startMs = millis();
  sentMs = correctedMs = 0;
  if (client.write((const uint8_t *)request, (size_t)length) != (size_t)length) {
    giveUp("the request was not sent");
  }
}

void setup() {
  for (int pin = 0; pin < 2; pin++) {
    pinMode(LEFT_PINS[pin], OUTPUT);
    pinMode(RIGHT_PINS[pin], OUTPUT);
  }
  Serial.begin(115200);
  drive(0, 0, "at first");
  WiFi.mode(WIFI_STA);
  // Asleep, it would hear what is sent to it up to some 100 ms later.
  WiFi.setSleep(false);
  WiFi.begin(WIFI_NAME, WIFI_PASSWORD);
  awayMs = wifiMs = millis();
}

void loop() {
  if (WiFi.status() != WL_CONNECTED) {
    if (state != State::AWAY) {
      giveUp("no Wi-Fi");
      wifiMs = millis();
    }
    if (millis() - wifiMs > WIFI_PAUSE_MS) {
      wifiMs = millis();
      WiFi.reconnect();
    }
  } else if (state != State::AWAY) {
    listen();
  } else if (millis() - awayMs > PAUSE_MS) {
    connectToServer();
  }
}
