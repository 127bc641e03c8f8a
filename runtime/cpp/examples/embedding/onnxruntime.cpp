// A pair graph of float32 input in ONNX Runtime's C++ API, without the native runtime: see docs/embedding.md.
//
//   g++ -std=c++17 -I HEADERS onnxruntime.cpp -L LIBRARIES -l:libonnxruntime.so.1
//
// Compiled and run in the tests.
#include <onnxruntime_cxx_api.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <vector>

// One opened pair graph of float32 input. An image: three planes, R, G and B, of height * width values in -1..1.
class Lpips {
 public:
  explicit Lpips(const std::filesystem::path& model) : session_(env_, model.c_str(), options()) {
    Ort::AllocatorWithDefaultOptions allocator;
    const auto side = session_.GetModelMetadata().LookupCustomMetadataMapAllocated("lpips.min_size", allocator);
    if (side == nullptr) throw std::runtime_error("no model of lpips-export");
    smallest_ = std::stoll(side.get());
  }

  float distance(std::vector<float>& reference, std::vector<float>& distorted, std::int64_t height,
                 std::int64_t width) {
    const auto values = static_cast<std::size_t>(3 * height * width);
    if (std::min(height, width) < smallest_) throw std::invalid_argument("an image is too small");  // or SIGFPE
    if (reference.size() != values || distorted.size() != values) throw std::invalid_argument("not 3 * height * width");
    const std::array<std::int64_t, 4> shape{1, 3, height, width};
    const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    const Ort::Value inputs[] = {
        Ort::Value::CreateTensor<float>(memory, reference.data(), values, shape.data(), shape.size()),
        Ort::Value::CreateTensor<float>(memory, distorted.data(), values, shape.data(), shape.size())};
    const char* inputs_named[] = {"reference", "distorted"};
    const char* outputs_named[] = {"distance"};
    const auto outputs = session_.Run(Ort::RunOptions{}, inputs_named, inputs, 2, outputs_named, 1);
    return outputs[0].GetTensorData<float>()[0];
  }

 private:
  static Ort::SessionOptions options() {
    Ort::SessionOptions made;
    made.SetIntraOpNumThreads(1);  // docs/embedding.md, Threads beside an encoder
    made.DisableMemPattern();      // gains no time, and keeps twice the memory of a large first run
    made.AddConfigEntry("session.intra_op.allow_spinning", "0");
    // made.AddConfigEntry("session.x64quantprecision", "1");  // INT8 on x86 without VNNI
    return made;
  }

  Ort::Env env_{ORT_LOGGING_LEVEL_WARNING, "lpips"};
  Ort::Session session_;
  std::int64_t smallest_ = 0;
};

int main(int count, char** given) {
  Lpips lpips(count > 1 ? given[1] : "artifacts/lpips_alex_fp32.onnx");
  std::vector<float> reference(3 * 64 * 64), distorted(reference.size());
  for (std::size_t k = 0; k < reference.size(); ++k) {
    reference[k] = static_cast<float>(k % 255) / 127.5f - 1;
    distorted[k] = static_cast<float>(k % 255 / 16 * 16) / 127.5f - 1;
  }
  std::printf("%.6f\n", static_cast<double>(lpips.distance(reference, distorted, 64, 64)));
}
