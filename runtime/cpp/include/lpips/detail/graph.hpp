// One opened .onnx: what it is, and tensors in, tensors out.
#pragma once

#include <cstdint>
#include <future>
#include <memory>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "../error.hpp"
#include "../model_info.hpp"
#include "contract.hpp"
#include "cpu.hpp"
#include "library.hpp"
#include "model_file.hpp"

namespace lpips::detail {

// What runs a graph: ONNX Runtime's name of the provider, ours, and its device.
struct Provider {
  std::string name;
  std::string ort_name;
  int device = 0;

  std::string shown() const { return device == 0 ? name : name + ":" + std::to_string(device); }
};

// `cpu`, `cuda`, `cuda:1`. Says nothing of whether it is there.
inline Provider parse_provider(const std::string& text) {
  const std::size_t colon = text.find(':');
  const std::string name = text.substr(0, colon);
  const std::string number = colon == std::string::npos ? "0" : text.substr(colon + 1);
  const bool digits = !number.empty() && number.size() <= 3 && number.find_first_not_of("0123456789") == std::string::npos;
  if (name != "cpu" && name != "cuda") {
    throw Error(Code::unknown_provider, "provider '" + one_line(text, 60) + "' is unknown; choose from cpu, cuda");
  }
  if (!digits) {
    throw Error(Code::unknown_provider,
                "provider '" + one_line(text, 60) + "': the device after the colon is a number, as in cuda:1");
  }
  if (name == "cpu" && std::stoi(number) != 0) {
    throw Error(Code::unknown_provider, "provider '" + text + "': the CPU has no device " + number);
  }
  return {name, name == "cpu" ? "CPUExecutionProvider" : "CUDAExecutionProvider", std::stoi(number)};
}

// How sessions are made: what of Options they need.
struct Setup {
  std::shared_ptr<const Library> library;
  Provider provider;
  int threads = 0;
  bool quick_start = false;
};

// An output, or features that are an input.
struct Tensor {
  std::vector<std::int64_t> shape{};
  std::vector<float> values{};
};

// An input: a name and memory that the caller keeps until the run is over.
struct Input {
  std::string name;
  const void* data;
  std::size_t bytes;
  std::vector<std::int64_t> shape;
  int type;
};

inline Input floats_of(std::string name, const std::vector<float>& values, std::vector<std::int64_t> shape) {
  return {std::move(name), values.data(), values.size() * sizeof(float), std::move(shape), float_type};
}

class Graph {
 public:
  // kind: of the graph that is needed. Error as Scorer's constructor.
  Graph(const std::filesystem::path& path, const Setup& setup, const std::string& kind)
      : library_(setup.library), provider_(setup.provider.shown()), path_(detail::shown(path)) {
    const std::string data = read_model(path);
    info_ = read_info(read_metadata(data, path_), path_);
    if (info_.kind != kind) {
      throw Error(Code::foreign_model, path_ + ": is the '" + info_.kind + "' graph of a split export, the '" + kind +
                                           "' graph is needed here");
    }
    // Beside the session's creation, which takes longer and one core.
    std::future<bool> sealed;
    try {
      sealed = std::async(std::launch::async, [&] { return is_sealed(data, info_.content_sha256); });
    } catch (const std::system_error&) {  // no more threads in this process
      sealed = std::async(std::launch::deferred, [&] { return is_sealed(data, info_.content_sha256); });
    }
    const auto damaged = [&] {
      return Error(Code::damaged_model, path_ + ": was changed or damaged after its export; export the model again");
    };
    try {
      create(data, setup);
    } catch (const Error&) {
      if (!sealed.get()) throw damaged();
      throw;
    }
    if (!sealed.get()) throw damaged();
    check_tensors(info_, path_, tensors(true), tensors(false));
    check_net();
  }

  const ModelInfo& info() const { return info_; }
  const std::string& path() const { return path_; }
  std::size_t depths() const { return net_of(info_).depths; }

  // The named outputs, in that order. The caller has checked the inputs. From any number of threads at once.
  std::vector<Tensor> run(const std::vector<Input>& inputs, const std::vector<std::string>& outputs) const {
    const OrtApi& api = library_->api();
    const std::string failed = path_ + ": provider '" + provider_ + "' failed";
    OrtMemoryInfo* memory = nullptr;
    library_->check(api.CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory), Code::provider, failed);
    check_made(memory, failed);
    const Owned<OrtMemoryInfo> memory_owner(memory, api.ReleaseMemoryInfo);
    std::vector<Owned<OrtValue>> owners;
    std::vector<const char*> input_names, output_names;
    std::vector<const OrtValue*> values;
    for (const Input& input : inputs) {
      OrtValue* value = nullptr;
      // ONNX Runtime does not write to inputs, but has no type that says so.
      library_->check(
          api.CreateTensorWithDataAsOrtValue(memory, const_cast<void*>(input.data), input.bytes, input.shape.data(),
                                             input.shape.size(), static_cast<ONNXTensorElementDataType>(input.type),
                                             &value),
          Code::provider, failed);
      check_made(value, failed);
      owners.emplace_back(value, api.ReleaseValue);
      values.push_back(value);
      input_names.push_back(input.name.c_str());
    }
    for (const std::string& name : outputs) output_names.push_back(name.c_str());
    std::vector<OrtValue*> found(outputs.size(), nullptr);
    library_->check(api.Run(session_.get(), nullptr, input_names.data(), values.data(), values.size(),
                            output_names.data(), output_names.size(), found.data()),
                    Code::provider, failed);
    for (OrtValue* value : found) owners.emplace_back(value, api.ReleaseValue);
    for (const OrtValue* value : found) check_made(value, failed);
    std::vector<Tensor> results;
    for (OrtValue* value : found) results.push_back(copied(value, failed));
    return results;
  }

 private:
  void create(const std::string& data, const Setup& setup) {
    const OrtApi& api = library_->api();
    const std::string cannot = path_ + ": ONNX Runtime cannot set a session up";
    const auto check = [&](OrtStatus* status) { library_->check(status, Code::internal, cannot); };
    // What goes wrong is an Error; a second copy on stderr would only hide it.
    env_ = made<OrtEnv>(*library_, api.ReleaseEnv, Code::internal, cannot,
                        [&](OrtEnv** out) { return api.CreateEnv(ORT_LOGGING_LEVEL_FATAL, "lpips", out); });
    const auto options =
        made<OrtSessionOptions>(*library_, api.ReleaseSessionOptions, Code::internal, cannot,
                                [&](OrtSessionOptions** out) { return api.CreateSessionOptions(out); });
    check(api.SetSessionLogSeverityLevel(options.get(), ORT_LOGGING_LEVEL_FATAL));
    check(api.SetIntraOpNumThreads(options.get(), setup.threads > 0 ? setup.threads : default_threads()));
    // In half the levels round differently, by up to 2e-4 of a distance: there all sessions have the same.
    const bool quick = setup.quick_start && info_.precision != "fp16";
    check(api.SetSessionGraphOptimizationLevel(options.get(), quick ? ORT_ENABLE_EXTENDED : ORT_ENABLE_ALL));
    // They gain no time, and where the first run is a large one the second takes twice its memory.
    check(api.DisableMemPattern(options.get()));
    const auto set = [&](const char* key, const char* value) {
      check(api.AddSessionConfigEntry(options.get(), key, value));
    };
    set("session.x64quantprecision", info_.precision == "int8" && int8_saturates() ? "1" : "0");
    // Threads spin for as long as it takes to bridge the gaps within a run; spinning on they would take the cores from
    // whoever embeds this. Before 1.32 nobody has tried whether the limit is known.
    if (library_->is_at_least(32)) {
      set("session.intra_op.allow_spinning", "1");
      set("session.intra_op.spin_duration_us", "200");
    } else {
      set("session.intra_op.allow_spinning", "0");
    }
    if (setup.provider.name != "cpu") append_cuda(options.get(), setup.provider);
    // With the CPU provider, which opens every intact graph, it is the file; with others it may be their set-up.
    const bool cpu = setup.provider.name == "cpu";
    session_ = made<OrtSession>(
        *library_, api.ReleaseSession, cpu ? Code::foreign_model : Code::provider,
        path_ + (cpu ? ": not an ONNX model, or a damaged one" : ": provider '" + provider_ + "' cannot open it"),
        [&](OrtSession** out) {
          return api.CreateSessionFromArray(env_.get(), data.data(), data.size(), options.get(), out);
        });
  }

  void append_cuda(OrtSessionOptions* options, const Provider& provider) const {
    const OrtApi& api = library_->api();
    const std::string what = "provider '" + provider.shown() + "'";
    check_available(provider);
    const auto own = made<OrtCUDAProviderOptionsV2>(
        *library_, api.ReleaseCUDAProviderOptions, Code::provider, what + " does not start",
        [&](OrtCUDAProviderOptionsV2** out) { return api.CreateCUDAProviderOptions(out); });
    const std::string device = std::to_string(provider.device);
    // TF32 is on by default, and a float32 model must stay float32. The default search tries every algorithm on every
    // new size of image, and gains nothing (benchmarks/results/cuda.md).
    const char* keys[] = {"device_id", "use_tf32", "cudnn_conv_algo_search"};
    const char* values[] = {device.c_str(), "0", "HEURISTIC"};
    library_->check(api.UpdateCUDAProviderOptions(own.get(), keys, values, 3), Code::provider,
                    what + " cannot be kept to float32 by ONNX Runtime " + library_->version());
    library_->check(api.SessionOptionsAppendExecutionProvider_CUDA_V2(options, own.get()), Code::provider,
                    what + " does not start, check its libraries and driver");
  }

  void check_available(const Provider& provider) const {
    const OrtApi& api = library_->api();
    char** names = nullptr;
    int count = 0;
    library_->check(api.GetAvailableProviders(&names, &count), Code::internal, "ONNX Runtime does not list providers");
    std::string listed;
    bool found = false;
    check_made(names, "ONNX Runtime does not list providers");
    for (int k = 0; k < count; ++k) {
      found = found || provider.ort_name == names[k];
      listed += (k > 0 ? ", " : "") + std::string(names[k]);
    }
    library_->check(api.ReleaseAvailableProviders(names, count), Code::internal, "ONNX Runtime does not list providers");
    if (!found) {
      throw Error(Code::provider, "provider '" + provider.shown() + "' is not in this ONNX Runtime " +
                                      library_->version() + ", which has " + one_line(listed) +
                                      "; name a build of it that has, or choose cpu");
    }
  }

  Tensors tensors(bool inputs) const {
    const OrtApi& api = library_->api();
    const std::string what = path_ + ": its tensors cannot be read";
    const auto check = [&](OrtStatus* status) { library_->check(status, Code::damaged_model, what); };
    OrtAllocator* allocator = nullptr;
    check(api.GetAllocatorWithDefaultOptions(&allocator));
    check_made(allocator, what);
    std::size_t count = 0;
    check((inputs ? api.SessionGetInputCount : api.SessionGetOutputCount)(session_.get(), &count));
    Tensors found;
    for (std::size_t k = 0; k < count; ++k) {
      char* text = nullptr;
      check((inputs ? api.SessionGetInputName : api.SessionGetOutputName)(session_.get(), k, allocator, &text));
      check_made(text, what);
      const std::string name = text;
      check(api.AllocatorFree(allocator, text));
      OrtTypeInfo* type = nullptr;
      check((inputs ? api.SessionGetInputTypeInfo : api.SessionGetOutputTypeInfo)(session_.get(), k, &type));
      check_made(type, what);
      const Owned<OrtTypeInfo> owner(type, api.ReleaseTypeInfo);
      const OrtTensorTypeAndShapeInfo* tensor = nullptr;
      check(api.CastTypeInfoToTensorInfo(type, &tensor));
      found[name] = {0, 0};
      if (tensor == nullptr) continue;  // a sequence or a map, which no contract has
      ONNXTensorElementDataType element = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
      std::size_t rank = 0;
      check(api.GetTensorElementType(tensor, &element));
      check(api.GetDimensionsCount(tensor, &rank));
      found[name] = {static_cast<int>(element), rank};
    }
    return found;
  }

  // Runs one image of a size that every net takes: of a size that only a smaller net takes, ONNX Runtime's CPU provider
  // dies. A compare graph, which takes no image, passes unseen.
  void check_net() const {
    if (info_.kind == "compare") return;
    const std::vector<std::uint8_t> zeros(static_cast<std::size_t>(probe_side * probe_side) * 3 * sizeof(float), 0);
    const bool floats = info_.input == "float32";
    std::vector<Input> inputs;
    for (const char* name : {"reference", "distorted", "image"}) {
      if ((info_.kind == "features") != (std::string(name) == "image")) continue;
      if (floats) {
        inputs.push_back({name, zeros.data(), zeros.size(), {1, 3, probe_side, probe_side}, float_type});
      } else {
        inputs.push_back({name, zeros.data(), zeros.size() / 4, {1, probe_side, probe_side, 3}, uint8_type});
      }
    }
    std::vector<Tensor> found;
    try {
      found = run(inputs, {info_.kind == "pair" ? "depth_0" : "feature_0"});
    } catch (const Error& error) {
      if (error.code() != Code::provider) throw;
      throw Error(Code::damaged_model, path_ + ": fails on an image of zeros: " + error.what());
    }
    const std::vector<std::int64_t>& shape = found[0].shape;
    const std::int64_t side = net_of(info_).first_side;
    if (shape.size() < 2 || shape[shape.size() - 1] != side || shape[shape.size() - 2] != side) {
      throw Error(Code::damaged_model,
                  path_ + ": is not the " + info_.net + " that its metadata promises; export it again");
    }
  }

  Tensor copied(OrtValue* value, const std::string& failed) const {
    const OrtApi& api = library_->api();
    const auto check = [&](OrtStatus* status) { library_->check(status, Code::provider, failed); };
    OrtTensorTypeAndShapeInfo* about = nullptr;
    check(api.GetTensorTypeAndShape(value, &about));
    check_made(about, failed);
    const Owned<OrtTensorTypeAndShapeInfo> owner(about, api.ReleaseTensorTypeAndShapeInfo);
    std::size_t rank = 0, count = 0;
    check(api.GetDimensionsCount(about, &rank));
    check(api.GetTensorShapeElementCount(about, &count));
    Tensor tensor;
    tensor.shape.resize(rank);
    check(api.GetDimensions(about, tensor.shape.data(), rank));
    void* data = nullptr;
    check(api.GetTensorMutableData(value, &data));
    if (count > 0) check_made(data, failed);
    const auto* values = static_cast<const float*>(data);
    if (count > 0) tensor.values.assign(values, values + count);
    return tensor;
  }

  std::shared_ptr<const Library> library_;
  std::string provider_;
  std::string path_;
  ModelInfo info_;
  Owned<OrtEnv> env_{nullptr, nullptr};
  Owned<OrtSession> session_{nullptr, nullptr};
};

}  // namespace lpips::detail
