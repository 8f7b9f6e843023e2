// Runs a sketch on Linux: g++ -std=c++17 -Wall -Wextra -Werror -DSKETCH='"path/sketch.ino"' -I arduino arduino/main.cpp

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "WiFi.h"

#include SKETCH

// Between two calls of loop(): often enough for what comes, and the machine is not kept busy.
static const useconds_t LOOP_PAUSE_US = 200;
static const int PINS = 256;

HostSerial Serial;
HostWiFi WiFi;
static volatile sig_atomic_t has_wifi = 1;

static uint64_t clock_ms() {
  struct timespec now;
  clock_gettime(CLOCK_BOOTTIME, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1000 + static_cast<uint64_t>(now.tv_nsec) / 1000000;
}

uint32_t millis() {
  // SKETCH_MILLIS is what it begins with: shortly before 2^32, it goes around.
  static const char *begin = getenv("SKETCH_MILLIS");
  static const uint64_t first = clock_ms() - (begin == nullptr ? 0 : strtoull(begin, nullptr, 10));
  return static_cast<uint32_t>(clock_ms() - first);
}

void delay(uint32_t ms) {
  poll(nullptr, 0, static_cast<int>(ms));
}

void analogWrite(uint8_t pin, int value) {
  static int values[PINS];
  if (values[pin] != value) {
    values[pin] = value;
    Serial.printf("pin %d %d\n", pin, value);
  }
}

size_t HostSerial::print(const char *text) {
  return printf("%s", text);
}

size_t HostSerial::println(const char *text) {
  return printf("%s\n", text);
}

size_t HostSerial::printf(const char *format, ...) {
  va_list values;
  va_start(values, format);
  const int count = vprintf(format, values);
  va_end(values);
  // Whoever read it has gone.
  if (count < 0 || fflush(stdout) != 0) {
    exit(1);
  }
  return static_cast<size_t>(count);
}

wl_status_t HostWiFi::status() {
  return has_wifi ? WL_CONNECTED : WL_CONNECTION_LOST;
}

static bool connect_to(int socket, const struct addrinfo *address, int32_t timeout_ms) {
  if (connect(socket, address->ai_addr, address->ai_addrlen) == 0) {
    return true;
  }
  struct pollfd writable = {socket, POLLOUT, 0};
  int error = errno;
  socklen_t size = sizeof error;
  return error == EINPROGRESS && poll(&writable, 1, timeout_ms) == 1 &&
         getsockopt(socket, SOL_SOCKET, SO_ERROR, &error, &size) == 0 && error == 0;
}

int WiFiClient::connect(const char *host, uint16_t port, int32_t timeoutMs) {
  stop();
  const char *other_host = getenv("SKETCH_HOST"), *other_port = getenv("SKETCH_PORT");
  char service[8];
  snprintf(service, sizeof service, "%u", port);
  struct addrinfo hints = {}, *found = nullptr;
  hints.ai_socktype = SOCK_STREAM;
  if (getaddrinfo(other_host ? other_host : host, other_port ? other_port : service, &hints, &found) != 0) {
    return 0;
  }
  socket_ = socket(found->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (socket_ >= 0 && !connect_to(socket_, found, timeoutMs)) {
    stop();
  }
  freeaddrinfo(found);
  return socket_ >= 0;
}

size_t WiFiClient::waiting() const {
  int count = 0;
  return socket_ >= 0 && ioctl(socket_, FIONREAD, &count) == 0 && count > 0 ? static_cast<size_t>(count) : 0;
}

bool WiFiClient::fill() {
  if (from_ == to_ && socket_ >= 0) {
    const ssize_t count = recv(socket_, buffer_, BUFFER, MSG_DONTWAIT);
    from_ = 0;
    to_ = count > 0 ? static_cast<size_t>(count) : 0;
  }
  return from_ < to_;
}

int WiFiClient::available() {
  return static_cast<int>(to_ - from_ + waiting());
}

int WiFiClient::read() {
  uint8_t byte;
  return read(&byte, 1) == 1 ? byte : -1;
}

int WiFiClient::read(uint8_t *bytes, size_t size) {
  size_t count = 0;
  while (count < size && fill()) {
    bytes[count++] = buffer_[from_++];
  }
  return socket_ < 0 ? -1 : static_cast<int>(count);
}

uint8_t WiFiClient::connected() {
  if (socket_ < 0) {
    return 0;
  }
  uint8_t byte;
  const ssize_t count = recv(socket_, &byte, 1, MSG_DONTWAIT | MSG_PEEK);
  return from_ < to_ || count > 0 || (count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK));
}

size_t WiFiClient::write(const uint8_t *bytes, size_t size) {
  const ssize_t count = socket_ < 0 ? -1 : send(socket_, bytes, size, MSG_NOSIGNAL);
  return count < 0 ? 0 : static_cast<size_t>(count);
}

int WiFiClient::setNoDelay(bool on) {
  const int value = on;
  return setsockopt(socket_, IPPROTO_TCP, TCP_NODELAY, &value, sizeof value);
}

void WiFiClient::stop() {
  if (socket_ >= 0) {
    close(socket_);
  }
  socket_ = -1;
  from_ = to_ = 0;
}

int main() {
  signal(SIGUSR1, [](int) { has_wifi = 0; });
  signal(SIGUSR2, [](int) { has_wifi = 1; });
  setup();
  for (;;) {
    loop();
    usleep(LOOP_PAUSE_US);
  }
}
