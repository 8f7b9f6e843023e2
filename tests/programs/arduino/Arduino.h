// As much of the ESP32's Arduino core as the example vehicle needs, on Linux, so that tests run the very sketch.
#pragma once

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

#define OUTPUT 0x03
#define INPUT 0x01
#define HIGH 0x1
#define LOW 0x0

// From the start of the program. As on the ESP32, it goes around after 49 days; tests let it begin anywhere.
uint32_t millis();
void delay(uint32_t ms);

inline void pinMode(uint8_t, uint8_t) {}
// A line for each change, so that a test can tell what the motors do.
void analogWrite(uint8_t pin, int value);
inline void digitalWrite(uint8_t pin, uint8_t value) {
  analogWrite(pin, value == LOW ? 0 : 255);
}

// The standard output, a line at a time.
class HostSerial {
public:
  void begin(unsigned long) {}
  size_t print(const char *text);
  size_t println(const char *text = "");
  size_t printf(const char *format, ...) __attribute__((format(printf, 2, 3)));
};

extern HostSerial Serial;
