// Images as the caller holds them: views, nothing is copied or owned.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lpips {

// What a buffer holds. Numbers are part of the C ABI (lpips.h).
enum class Format : int {
  // Interleaved 8-bit pixels, 0..255.
  rgb = 0,
  bgr = 1,   // OpenCV's CV_8UC3, FFmpeg's bgr24
  rgba = 2,  // an alpha below 255 is an error: LPIPS is defined on opaque images, and no background is guessed
  bgra = 3,
  rgbx = 4,  // the fourth byte is padding and ignored: FFmpeg's rgb0, frames whose alpha means nothing
  bgrx = 5,
  // Three planes of float, R, G and B, one after the other. Values outside of the range are an error.
  planar_unit = 16,      // 0..1
  planar_symmetric = 17  // -1..1
};

// The range of a planar float image.
enum class Range { unit, symmetric };

// One image that belongs to the caller, who keeps it until the call returns. All is checked in the call.
struct Image {
  const void* data = nullptr;
  std::size_t bytes = 0;  // that may be read from data on
  std::int64_t width = 0;
  std::int64_t height = 0;
  std::size_t stride = 0;  // bytes from one row to the next; 0: rows follow each other. The last row needs no padding.
  Format format = Format::rgb;

  Image() = default;

  // 8-bit pixels.
  Image(const std::uint8_t* pixels, std::size_t size, std::int64_t columns, std::int64_t rows,
        Format order = Format::rgb, std::size_t row_stride = 0)
      : data(pixels), bytes(size), width(columns), height(rows), stride(row_stride), format(order) {}

  // Planes of float, `count` values, 3 * width * height of which are read.
  Image(const float* planes, std::size_t count, std::int64_t columns, std::int64_t rows, Range range)
      : data(planes),
        bytes(count > SIZE_MAX / sizeof(float) ? SIZE_MAX : count * sizeof(float)),
        width(columns),
        height(rows),
        format(range == Range::unit ? Format::planar_unit : Format::planar_symmetric) {}
};

}  // namespace lpips
