// What a model says of itself.
#pragma once

#include <string>

namespace lpips {

// The model's metadata, keys without their prefix `lpips.`.
struct ModelInfo {
  std::string format;     // version of the contract
  std::string kind;       // pair, features or compare
  std::string net;        // alex, squeeze or vgg
  std::string version;    // of LPIPS, 0.1 or 0.0
  std::string lin;        // learned, baseline (no weighting) or custom
  std::string precision;  // fp32, fp16 or int8
  std::string target;     // flavour of INT8, cpu or tensorrt; openvino for float32 as OpenVINO likes it; else empty
  std::string input;      // float32, or uint8 of a model that takes 8-bit pixels only
  int min_size = 0;       // smallest height and width, pixels
  int stride = 0;         // pixels per position of the deepest tap
  int halo = 0;           // pixels around a tile that its positions depend on
  double eps = 0;         // added to each norm
  std::string backbone_sha256;
  std::string lin_sha256;
  std::string exporter;  // package and version
  std::string reference;
  std::string license;
  std::string content_sha256;  // the seal of the file's bytes
};

}  // namespace lpips
