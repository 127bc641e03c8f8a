// What the parts of load_image share.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "../image_file.hpp"

// What is said of a file: its name goes before.
struct Refused {
  std::string what;
};

[[noreturn]] inline void damaged(const char* kind, const std::string& reason) {
  throw Refused{std::string("a damaged or truncated ") + kind + " (" + reason + "); write it again"};
}

inline std::string with_commas(std::size_t number) {
  std::string digits = std::to_string(number);
  for (std::size_t at = digits.size(); at > 3;) {
    at -= 3;
    digits.insert(at, ",");
  }
  return digits;
}

// An unsigned number of `bytes` bytes.
inline std::uint32_t number(std::string_view data, std::size_t at, std::size_t bytes, bool big = true) {
  std::uint32_t value = 0;
  for (std::size_t k = 0; k < bytes; ++k) {
    const auto byte = static_cast<unsigned char>(data[big ? at + k : at + bytes - 1 - k]);
    value = value << 8 | byte;
  }
  return value;
}

inline bool begins(std::string_view data, std::string_view with) { return data.substr(0, with.size()) == with; }

inline void check_pixels(std::uint32_t width, std::uint32_t height, std::int64_t limit, const char* kind) {
  if (width == 0 || height == 0) damaged(kind, "a side of 0 pixels");
  if (height > limit / width) {
    throw Refused{std::to_string(width) + "x" + std::to_string(height) + " exceeds " +
                  with_commas(static_cast<std::size_t>(limit)) + " pixels; scale it down or cut it first"};
  }
}

constexpr std::string_view exif_mark("Exif\0\0", 6);

// What else of a file decides its pixels, gathered while it is walked through.
struct Found {
  std::optional<std::string> exif{};  // exif_mark and a TIFF structure
  std::optional<std::string_view> xmp{};
  bool icc = false;
  bool mpo = false;
};

struct Png {
  std::uint32_t width = 0;
  std::uint32_t height = 0;
  int depth = 0;
  int colour = 0;  // 0 gray, 2 RGB, 3 palette, 4 gray and alpha, 6 RGB and alpha
  bool transparent = false;
  std::string palette{};
  std::string palette_alpha{};
  std::string image_data{};  // of a palette: its IDAT chunks, as they are in the file
  std::string_view header{};
};

// Walk through a whole file, so that what it holds is known, and is what stb decodes, before stb sees it.
Png walk_png(std::string_view data, Found& found, std::int64_t limit);
void walk_jpeg(std::string_view data, Found& found, std::int64_t limit);

// A PNG with a palette, with all 256 colours in it: those that the file lacks are transparent, so that a pixel of such a
// colour, for which stb would read memory that nobody wrote, is noticed.
std::string with_whole_palette(const Png& png);

// 1 to 8, by EXIF, or by XMP where EXIF has none. unreadable: there is EXIF data, and it cannot be read.
int orientation(const Found& found, bool& unreadable);
void make_upright(Picture& picture, int turned);
