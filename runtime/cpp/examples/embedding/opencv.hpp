// Images of OpenCV for the native runtime: see docs/embedding.md.
//
// Compiled by hand with OpenCV 4.6.0, and run. Not in the tests.
#pragma once

#include <lpips/lpips.hpp>
#include <opencv2/core.hpp>

// Nothing is copied: the matrix must outlive the call. A region of interest is as good as a whole image.
inline lpips::Image view(const cv::Mat& image) {
  CV_Assert(image.dims == 2 && image.type() == CV_8UC3 && !image.empty());  // not 16-bit, not gray, not BGRA
  const std::size_t bytes = static_cast<std::size_t>(image.rows - 1) * image.step + image.elemSize() * image.cols;
  return {image.data, bytes, image.cols, image.rows, lpips::Format::bgr, image.step};
}
