// The ESP32's WiFi.h on Linux: always connected, but for the time between SIGUSR1 and SIGUSR2.
#pragma once

#include "Arduino.h"

enum wl_status_t { WL_IDLE_STATUS = 0, WL_CONNECTED = 3, WL_CONNECTION_LOST = 5, WL_DISCONNECTED = 6 };
enum wifi_mode_t { WIFI_OFF = 0, WIFI_STA = 1 };

class HostWiFi {
public:
  bool mode(wifi_mode_t) {
    return true;
  }
  bool setSleep(bool) {
    return true;
  }
  bool setAutoReconnect(bool) {
    return true;
  }
  wl_status_t begin(const char *, const char *) {
    return status();
  }
  bool reconnect() {
    return true;
  }
  wl_status_t status();
};

extern HostWiFi WiFi;

// A TCP connection. Like the ESP32's, it reads ahead into a buffer of its own, and what is in there counts as available.
class WiFiClient {
public:
  WiFiClient() = default;
  WiFiClient(const WiFiClient &) = delete;
  WiFiClient &operator=(const WiFiClient &) = delete;
  ~WiFiClient() {
    stop();
  }

  // Where they are set, SKETCH_HOST and SKETCH_PORT say where to instead.
  int connect(const char *host, uint16_t port, int32_t timeoutMs = 3000);
  int available();
  int read();
  int read(uint8_t *bytes, size_t size);
  uint8_t connected();
  size_t write(const uint8_t *bytes, size_t size);
  size_t print(const char *text) {
    return write(reinterpret_cast<const uint8_t *>(text), strlen(text));
  }
  int setNoDelay(bool on);
  void stop();
  operator bool() {
    return connected() != 0;
  }

private:
  static constexpr size_t BUFFER = 1436;

  size_t waiting() const;
  bool fill();

  int socket_ = -1;
  uint8_t buffer_[BUFFER];
  size_t from_ = 0, to_ = 0;
};
