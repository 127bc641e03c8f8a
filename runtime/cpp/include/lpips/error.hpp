// The one exception of lpips, and its codes.
#pragma once

#include <stdexcept>
#include <string>

namespace lpips {

// Numbers are part of the C ABI (lpips.h): new ones may be added, none changes.
enum class Code : int {
  usage = 1,             // an argument that cannot be meant
  buffer = 2,            // null, too short for its image, or with a stride smaller than a row
  shape = 3,             // sides below the model's smallest, that differ or overflow; counts that do not fit
  value = 4,             // floats that are not finite or not in their range; floats for a model that takes 8-bit pixels
  transparent = 5,       // pixels with an alpha below 255
  model_not_found = 10,  // no model at this path, or it cannot be read
  foreign_model = 11,    // no ONNX model of lpips-export, or of another contract, or of another export than its siblings
  damaged_model = 12,    // not what its seal, its metadata or the contract promise
  runtime_missing = 20,  // no ONNX Runtime where it was looked for, or a library that is none
  runtime_too_old = 21,  // an ONNX Runtime that cannot run these models
  unknown_provider = 30, // no execution provider of this name
  provider = 31,         // it is not in this ONNX Runtime, did not start, or failed
  foreign_features = 40, // features that another model, version or provider made
  memory = 50,           // not enough of it
  internal = 99          // a fault of ours
};

// what() names the thing, what is wrong with it and what to do, in one line of UTF-8.
class Error : public std::runtime_error {
 public:
  Error(Code code, const std::string& message) : std::runtime_error(message), code_(code) {}

  Code code() const noexcept { return code_; }

 private:
  Code code_;
};

}  // namespace lpips
