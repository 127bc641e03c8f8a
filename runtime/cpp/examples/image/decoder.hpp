// stb_image, which decodes. It is lenient: it checks no checksum, takes what is cut off for zeros, turns CMYK and animations
// into some RGB, knows no EXIF, and reads tables of a JPEG that nobody defined. Only what was walked through may reach it.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string_view>

struct Freed {
  void operator()(void* memory) const { std::free(memory); }
};

template <typename Sample>
struct Samples {
  int width = 0;
  int height = 0;
  int channels = 0;
  std::unique_ptr<Sample, Freed> values{};
};

// channels: as many for each pixel, or 0 for those of the file. kind: PNG or JPEG, for messages. Refused for damage,
// std::bad_alloc where memory does not suffice.
Samples<std::uint8_t> decode_8(std::string_view data, int channels, const char* kind);
Samples<std::uint16_t> decode_16(std::string_view data, int channels, const char* kind);
