#include <doctest/doctest.h>

#include <fstream>
#include <sstream>

#include "fault.hpp"
#include "opened.hpp"

using namespace lpips;

namespace {

std::string bytes_of(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream out;
  out << file.rdbuf();
  return out.str();
}

// A file of these bytes, removed at the end.
struct Written {
  std::filesystem::path path;

  explicit Written(const std::string& bytes) {
    static int number = 0;
    path = std::filesystem::temp_directory_path() /
           ("lpips-test-" + std::to_string(reinterpret_cast<std::uintptr_t>(this)) + "-" + std::to_string(++number) + ".onnx");
    std::ofstream(path, std::ios::binary) << bytes;
  }
  Written(const Written&) = delete;
  Written& operator=(const Written&) = delete;
  ~Written() { std::filesystem::remove(path); }
};

std::optional<Code> opening(const std::filesystem::path& path, std::string* message = nullptr) {
  return code_of([&] { Scorer scorer(path); }, message);
}

}  // namespace

TEST_CASE("a model of which any byte was changed or lost is not opened") {
  const std::string whole = bytes_of(model("alex"));
  std::string message;
  for (const std::size_t at : {std::size_t{200}, whole.size() / 3, whole.size() / 2, whole.size() - 3000}) {
    std::string changed = whole;
    changed[at] = static_cast<char>(changed[at] ^ 0x20);
    const std::optional<Code> code = opening(Written(changed).path, &message);
    CHECK((code == Code::damaged_model || code == Code::foreign_model));
  }
  for (const std::size_t length : {std::size_t{0}, std::size_t{1}, std::size_t{100}, whole.size() / 2, whole.size() - 1}) {
    const std::optional<Code> code = opening(Written(whole.substr(0, length)).path, &message);
    CHECK((code == Code::damaged_model || code == Code::foreign_model));
  }
  CHECK(opening(Written(whole + "more").path) != std::nullopt);
}

TEST_CASE("weights that were changed are noticed by the seal") {
  std::string changed = bytes_of(model("alex"));
  changed[changed.size() / 2] = static_cast<char>(changed[changed.size() / 2] ^ 1);
  CHECK(opening(Written(changed).path) == Code::damaged_model);
}

TEST_CASE("files that are no models of lpips-export are foreign") {
  CHECK(opening(Written("hello").path) == Code::foreign_model);
  CHECK(opening(Written(std::string(100000, '\0')).path) == Code::foreign_model);
  CHECK(opening(model("nowhere")) == Code::model_not_found);
  CHECK(opening(std::filesystem::temp_directory_path()) == Code::model_not_found);
}

TEST_CASE("a graph of another kind than a pair's is refused by its name") {
  std::string message;
  CHECK(opening(model("alex_features"), &message) == Code::foreign_model);
  CHECK(contains(message, "'features' graph"));
  CHECK(opening(model("alex_compare")) == Code::foreign_model);
}

TEST_CASE("a missing ONNX Runtime, a library that is none and one that is too old are told apart") {
  std::string message;
  const auto code = [&](const char* path) {
    Options options;
    options.onnxruntime = path;
    return code_of([&] { Scorer scorer(model("alex"), options); }, &message);
  };
  CHECK(code("/nowhere/libonnxruntime.so") == Code::runtime_missing);
  CHECK(contains(message, "/nowhere/libonnxruntime.so"));
  CHECK(contains(message, "LPIPS_ONNXRUNTIME"));
  CHECK(code(NO_ONNXRUNTIME) == Code::runtime_missing);
  CHECK(contains(message, "OrtGetApiBase"));
  CHECK(code(OLD_ONNXRUNTIME) == Code::runtime_too_old);
  CHECK(contains(message, "is ONNX Runtime 1.2.3, lpips needs 1.18 or newer"));
}

TEST_CASE("a provider that is not in this ONNX Runtime, or unknown, is an error, and nothing takes over") {
  Options options;
  options.provider = "openvino";
  CHECK(code_of([&] { Scorer scorer(model("alex"), options); }) == Code::unknown_provider);
  options.provider = "cuda:7";
  std::string message;
  CHECK(code_of([&] { Scorer scorer(model("alex"), options); }, &message) == Code::provider);
  CHECK(contains(message, "cuda:7"));
}

TEST_CASE("siblings of another export do not belong to a model") {
  const auto folder = std::filesystem::temp_directory_path() / "lpips-test-siblings";
  std::filesystem::create_directories(folder);
  std::filesystem::copy_file(model("alex"), folder / "a.onnx", std::filesystem::copy_options::overwrite_existing);
  for (const char* kind : {"_features", "_compare"}) {
    std::filesystem::copy_file(model(std::string("squeeze") + kind), folder / (std::string("a") + kind + ".onnx"),
                               std::filesystem::copy_options::overwrite_existing);
  }
  const Picture a(1);
  std::string message;
  CHECK(code_of([&] { Scorer(folder / "a.onnx").encode(a.view()); }, &message) == Code::foreign_model);
  CHECK(contains(message, "does not belong to a.onnx, its net is squeeze, not alex"));
  std::filesystem::remove_all(folder);
}
