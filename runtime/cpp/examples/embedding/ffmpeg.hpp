// Frames of FFmpeg for the native runtime: see docs/embedding.md.
//
// Compiled by hand with FFmpeg 5.1.9 (libavutil 57, libswscale 6), and run. Not in the tests.
#pragma once

extern "C" {
#include <libavutil/frame.h>
#include <libswscale/swscale.h>
}

#include <lpips/lpips.hpp>

#include <cstdint>
#include <stdexcept>
#include <vector>

// Decoded frames, of 8 bits and SDR, as RGB. One for each stream: what `converted` returns lives until its next call.
class Rgb {
 public:
  lpips::Image converted(const AVFrame& frame) {
    const auto format = static_cast<AVPixelFormat>(frame.format);
    const int quality = SWS_BICUBIC | SWS_ACCURATE_RND | SWS_FULL_CHR_H_INT;
    scale_ = sws_getCachedContext(scale_, frame.width, frame.height, format, frame.width, frame.height,
                                  AV_PIX_FMT_RGB24, quality, nullptr, nullptr, nullptr);
    // Left to itself, swscale takes every frame for BT.601. AVCOL_SPC_* and SWS_CS_* have the same numbers.
    const int space = frame.colorspace == AVCOL_SPC_UNSPECIFIED ? SWS_CS_ITU709 : frame.colorspace;
    const int* matrix = sws_getCoefficients(space);
    const int full = frame.color_range == AVCOL_RANGE_JPEG;
    if (scale_ == nullptr || sws_setColorspaceDetails(scale_, matrix, full, matrix, 1, 0, 1 << 16, 1 << 16) < 0)
      throw std::runtime_error("swscale does not convert this pixel format");
    stride_ = (static_cast<std::size_t>(frame.width) * 3 + 63) / 64 * 64;
    pixels_.resize(stride_ * static_cast<std::size_t>(frame.height));
    std::uint8_t* planes[] = {pixels_.data(), nullptr, nullptr, nullptr};
    const int strides[] = {static_cast<int>(stride_), 0, 0, 0};
    if (sws_scale(scale_, frame.data, frame.linesize, 0, frame.height, planes, strides) != frame.height)
      throw std::runtime_error("swscale did not convert the frame");
    return {pixels_.data(), pixels_.size(), frame.width, frame.height, lpips::Format::rgb, stride_};
  }

  Rgb() = default;
  Rgb(const Rgb&) = delete;
  Rgb& operator=(const Rgb&) = delete;
  ~Rgb() { sws_freeContext(scale_); }

 private:
  SwsContext* scale_ = nullptr;
  std::vector<std::uint8_t> pixels_;
  std::size_t stride_ = 0;
};
