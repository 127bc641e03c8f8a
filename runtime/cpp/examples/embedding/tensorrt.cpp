// A TensorRT plan of a pair graph with float32 input: see docs/embedding.md.
//
// Not compiled with TensorRT's headers, and never run by us. Its syntax was checked against a stand-in that has the
// signatures which NVIDIA documents for TensorRT 10.15, and with the headers of CUDA 13.
#include <NvInferRuntime.h>
#include <cuda_runtime_api.h>

#include <cstdint>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

struct Logger : nvinfer1::ILogger {
  void log(Severity severity, char const* text) noexcept override {
    if (severity <= Severity::kWARNING) std::fprintf(stderr, "%s\n", text);
  }
};

void must(bool done, const char* what) {  // TensorRT answers with false and null pointers, and tells its logger why
  if (!done) throw std::runtime_error(what);
}
void must(cudaError_t error, const char* what) {
  if (error != cudaSuccess) throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(error));
}

class Plan {
 public:
  explicit Plan(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    const std::vector<char> data{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
    runtime_.reset(nvinfer1::createInferRuntime(logger_));
    must(runtime_ != nullptr, "TensorRT does not start");
    engine_.reset(runtime_->deserializeCudaEngine(data.data(), data.size()));  // null: another version, another GPU
    must(engine_ != nullptr, "not a plan for this TensorRT and this GPU");
    for (const char* name : {"reference", "distorted"})
      must(engine_->getTensorIOMode(name) == nvinfer1::TensorIOMode::kINPUT &&
               engine_->getTensorDataType(name) == nvinfer1::DataType::kFLOAT &&
               engine_->getTensorShape(name).nbDims == 4,
           "not the tensors of a float32 pair graph");
    must(engine_->getTensorIOMode("distance") == nvinfer1::TensorIOMode::kOUTPUT, "no output named distance");
    context_.reset(engine_->createExecutionContext());  // memory for the largest shape of its profiles is taken here
    must(context_ != nullptr, "not enough memory on the GPU; build it with a smaller --max");
    must(cudaStreamCreate(&stream_), "no stream");
  }
  ~Plan() {
    for (const auto& buffer : buffers_) cudaFree(buffer.second);
    cudaStreamDestroy(stream_);
  }

  // Host memory: [1,3,height,width], RGB in -1..1. One thread at a time.
  float distance(const float* reference, const float* distorted, std::int64_t height, std::int64_t width) {
    const nvinfer1::Dims4 shape(1, 3, height, width);
    choose_profile(shape);
    const std::size_t bytes = sizeof(float) * 3 * static_cast<std::size_t>(height * width);
    for (const char* name : {"reference", "distorted"}) {
      void* device = buffer(name, bytes);
      const float* image = name[0] == 'r' ? reference : distorted;
      must(cudaMemcpyAsync(device, image, bytes, cudaMemcpyHostToDevice, stream_), name);
      must(context_->setInputShape(name, shape) && context_->setTensorAddress(name, device), name);
    }
    for (std::int32_t k = 0; k < engine_->getNbIOTensors(); ++k) {  // every output needs an address, wanted or not
      const char* name = engine_->getIOTensorName(k);
      if (engine_->getTensorIOMode(name) != nvinfer1::TensorIOMode::kOUTPUT) continue;
      const nvinfer1::Dims size = context_->getTensorShape(name);
      std::size_t count = 1;
      for (std::int32_t d = 0; d < size.nbDims; ++d) count *= static_cast<std::size_t>(size.d[d]);
      must(context_->setTensorAddress(name, buffer(name, count * sizeof(float))), name);
    }
    float found = 0;
    must(context_->enqueueV3(stream_), "TensorRT fails");
    must(cudaMemcpyAsync(&found, buffers_["distance"], sizeof found, cudaMemcpyDeviceToHost, stream_), "distance");
    must(cudaStreamSynchronize(stream_), "TensorRT fails");
    return found;
  }

 private:
  // The first that takes this shape. Without the check the library may only log, and compute nothing.
  void choose_profile(const nvinfer1::Dims& shape) {
    using Select = nvinfer1::OptProfileSelector;
    for (std::int32_t k = 0; k < engine_->getNbOptimizationProfiles(); ++k) {
      const nvinfer1::Dims low = engine_->getProfileShape("reference", k, Select::kMIN);
      const nvinfer1::Dims high = engine_->getProfileShape("reference", k, Select::kMAX);
      bool fits = true;
      for (std::int32_t d = 0; d < 4; ++d) fits = fits && low.d[d] <= shape.d[d] && shape.d[d] <= high.d[d];
      if (!fits) continue;
      if (k != context_->getOptimizationProfile())
        must(context_->setOptimizationProfileAsync(k, stream_), "does not take its profile");
      return;
    }
    throw std::invalid_argument("the engine is not built for images of this size");
  }

  void* buffer(const std::string& name, std::size_t bytes) {
    if (sizes_[name] < bytes) {
      must(cudaFree(buffers_[name]), "cudaFree");
      buffers_[name] = nullptr;
      must(cudaMalloc(&buffers_[name], bytes), "not enough memory on the GPU");
      sizes_[name] = bytes;
    }
    return buffers_[name];
  }

  Logger logger_;  // outlives what logs to it
  std::unique_ptr<nvinfer1::IRuntime> runtime_;
  std::unique_ptr<nvinfer1::ICudaEngine> engine_;
  std::unique_ptr<nvinfer1::IExecutionContext> context_;
  cudaStream_t stream_ = nullptr;
  std::map<std::string, void*> buffers_;
  std::map<std::string, std::size_t> sizes_;
};

int main(int count, char** given) {
  if (count < 2) return 2;
  Plan plan(given[1]);
  std::vector<float> reference(3 * 64 * 64), distorted(reference.size());
  for (std::size_t k = 0; k < reference.size(); ++k) {
    reference[k] = static_cast<float>(k % 255) / 127.5f - 1;
    distorted[k] = static_cast<float>(k % 255 / 16 * 16) / 127.5f - 1;
  }
  std::printf("%.6f\n", static_cast<double>(plan.distance(reference.data(), distorted.data(), 64, 64)));
}
