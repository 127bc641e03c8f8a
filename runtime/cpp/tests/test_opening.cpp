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

// A model whose metadata has this value, as long as its own, and a seal that is right.
std::string relabelled(std::string data, const std::string& key, const std::string& value) {
  const auto put = [&](const std::string& name, const std::string& text) {
    const std::size_t at = data.rfind("lpips." + name + "\x12" + static_cast<char>(text.size()));
    REQUIRE(at != std::string::npos);
    data.replace(at + 6 + name.size() + 2, text.size(), text);
  };
  put(key, value);
  put("content_sha256", std::string(64, '0'));
  detail::Sha256 hash;
  hash.update(data);
  put("content_sha256", hash.hex());
  return data;
}

void* symbol_of(const char* library, const char* name) {
  std::string why;
  void* opened = detail::loading::open(library, why);
  INFO(why);
  REQUIRE(opened != nullptr);
  void* found = dlsym(opened, name);
  REQUIRE(found != nullptr);
  return found;
}

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

TEST_CASE("messages are one line of UTF-8, whatever a path holds") {
  std::string message;
  CHECK(opening("/nowhere/a\nb\xff.onnx", &message) == Code::model_not_found);
  CHECK(contains(message, "/nowhere/a\\nb\\udcff.onnx: no such model"));
  Options options;
  options.onnxruntime = "/nowhere/a\nb\xff.so";
  CHECK(code_of([&] { Scorer scorer(model("alex"), options); }, &message) == Code::runtime_missing);
  CHECK_FALSE(contains(message, "\xff"));
}

#if defined(__linux__)
TEST_CASE("in a working directory that is gone, relative paths are not found") {
  const std::filesystem::path before = std::filesystem::current_path();
  const auto gone = std::filesystem::temp_directory_path() / "lpips-test-gone";
  const std::filesystem::path whole = std::filesystem::absolute(model("alex"));
  std::filesystem::create_directories(gone);
  std::filesystem::current_path(gone);
  std::filesystem::remove(gone);
  Options options;
  options.onnxruntime = "libonnxruntime.so";
  const std::optional<Code> library = code_of([&] { Scorer scorer(whole, options); });
  const std::optional<Code> file = opening("alex.onnx");
  std::filesystem::current_path(before);
  CHECK(library == Code::runtime_missing);
  CHECK(file == Code::model_not_found);
}
#endif

TEST_CASE("ONNX Runtime is told how to run: threads, how they wait, optimisations, memory") {
  const auto recorded = reinterpret_cast<const char* (*)()>(symbol_of(RECORDING_ONNXRUNTIME, "recorded"));
  const auto pretend = reinterpret_cast<void (*)(const char*)>(symbol_of(RECORDING_ONNXRUNTIME, "pretend"));
  Options options;
  options.onnxruntime = RECORDING_ONNXRUNTIME;
  const auto calls = [&](const char* version) {
    pretend(version);
    Scorer scorer(model("alex"), options);
    return std::string(recorded());
  };
  const std::string usual = calls("1.32.0");
  CHECK(contains(usual, "threads=" + std::to_string(detail::default_threads()) + "\n"));
  CHECK(contains(usual, "optimisations=99\n"));
  CHECK(contains(usual, "no memory patterns\n"));
  CHECK(contains(usual, "session.intra_op.allow_spinning=1\nsession.intra_op.spin_duration_us=200\n"));
  CHECK(contains(usual, "session.x64quantprecision=0\n"));
  const std::string older = calls("1.31.9");
  CHECK(contains(older, "session.intra_op.allow_spinning=0\n"));
  CHECK_FALSE(contains(older, "spin_duration_us"));
  options.threads = 3;
  options.quick_start = true;
  const std::string quick = calls("1.32.0");
  CHECK(contains(quick, "threads=3\n"));
  CHECK(contains(quick, "optimisations=2\n"));
}

TEST_CASE("siblings of another eps, halo or smallest side do not belong to a model") {
  const auto folder = std::filesystem::temp_directory_path() / "lpips-test-relabelled";
  std::filesystem::create_directories(folder);
  std::ofstream(folder / "a.onnx", std::ios::binary) << bytes_of(model("alex"));
  const Picture a(1);
  for (const auto& [key, value] : {std::pair<const char*, const char*>{"eps", "1e-11"}, {"min_size", "32"}, {"stride", "17"}}) {
    for (const std::string kind : {"_features", "_compare"}) {
      for (const std::string other : {"_features", "_compare"}) {
        const std::string whole = bytes_of(model("alex" + other));
        std::ofstream(folder / ("a" + other + ".onnx"), std::ios::binary) << (other == kind ? relabelled(whole, key, value) : whole);
      }
      std::string message;
      CHECK(code_of([&] { Scorer(folder / "a.onnx").encode(a.view()); }, &message) == Code::foreign_model);
      CHECK(contains(message, "a" + kind + ".onnx: does not belong to a.onnx, its " + key + " is " + value + ", not "));
    }
  }
  std::filesystem::remove_all(folder);
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
