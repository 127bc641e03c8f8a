// PNG or JPEG file -> 8-bit RGB, as lpips_runtime/images.py reads it, or an error.
#pragma once

#include <cstdint>
#include <map>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

// The message names the file, what is wrong with it and what to do.
class ImageError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

struct Picture {
  int width = 0;
  int height = 0;
  std::vector<std::uint8_t> pixels{};          // RGB, row by row
  std::map<std::string, std::string> notes{};  // kind -> what the user should know though the file could be read
};

// Upright. Gray and palettes become RGB; 16-bit gray is rounded to 8 bits, 16-bit colour cut to the high byte; an ICC
// profile is ignored. ImageError for all that is cut off, animated, transparent, CMYK, or neither PNG nor JPEG, and for
// broken structure: checksums of chunks, tables and scans of a JPEG. Damage within compressed data that still can be
// decoded is not noticed: the checksum at the end of a PNG's pixels is not looked at, and a JPEG has none.
Picture load_image(const std::string& name);

// Pillow's limit.
constexpr std::int64_t most_pixels = 178'956'970;

// The same for what a file holds; `name` is for messages.
Picture decode_image(std::string_view data, const std::string& name, std::int64_t limit = most_pixels);
