// ONNX Runtime's library, loaded when it is needed, and its C API with errors as exceptions.
//
// The C API, not the C++ one over it: that keeps its table of functions in a static variable of the whole process
// (Ort::Global), which a program that uses ONNX Runtime by itself, or another version of this header, would overwrite.
#pragma once

#include <onnxruntime_c_api.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#if defined(_WIN32)
#ifndef WIN32_LEAN_AND_MEAN
#define WIN32_LEAN_AND_MEAN
#endif
#ifndef NOMINMAX
#define NOMINMAX
#endif
#include <windows.h>
#else
#include <dlfcn.h>
#endif

#include "../error.hpp"
#include "words.hpp"

namespace lpips::detail {

// The lowest that holds the calls made here: the options of the CUDA provider came with 1.11. test_api_version.py looks at
// every call.
inline constexpr std::uint32_t api_version = 11;

// The first release that reads models of lpips-export, which are of ONNX's IR version 10.
inline constexpr int oldest_minor = 18;

inline constexpr const char* library_variable = "LPIPS_ONNXRUNTIME";

namespace loading {

inline std::vector<std::string> usual_names() {
#if defined(_WIN32)
  return {"onnxruntime.dll"};
#elif defined(__APPLE__)
  return {"libonnxruntime.dylib", "libonnxruntime.1.dylib"};
#else
  return {"libonnxruntime.so.1", "libonnxruntime.so"};
#endif
}

// Never unloaded: its threads and thread-local variables may outlive a session.
inline void* open(const std::filesystem::path& path, std::string& why) {
#if defined(_WIN32)
  // With the library's own folder first for the libraries that it needs, if a path was given.
  const DWORD flags = path.is_absolute() ? LOAD_WITH_ALTERED_SEARCH_PATH : 0;
  HMODULE found = LoadLibraryExW(path.c_str(), nullptr, flags);
  if (found == nullptr) why = "error " + std::to_string(GetLastError());
  return reinterpret_cast<void*>(found);
#else
  void* found = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (found == nullptr) {
    const char* said = dlerror();
    why = one_line(said == nullptr ? "no reason given" : said);
  }
  return found;
#endif
}

using GetApiBase = const OrtApiBase* (*)();

inline GetApiBase entry_of(void* library) {
#if defined(_WIN32)
  return reinterpret_cast<GetApiBase>(
      reinterpret_cast<void (*)()>(GetProcAddress(static_cast<HMODULE>(library), "OrtGetApiBase")));
#else
  return reinterpret_cast<GetApiBase>(dlsym(library, "OrtGetApiBase"));
#endif
}

}  // namespace loading

// A loaded ONNX Runtime.
class Library {
 public:
  // `named`: the file; empty: $LPIPS_ONNXRUNTIME, then what the system finds under the usual names.
  explicit Library(std::filesystem::path named) {
    std::string origin;
    const char* variable = std::getenv(library_variable);
    if (named.empty() && variable != nullptr && *variable != '\0') {
      named = variable;
      origin = std::string(" (from ") + library_variable + ")";
    }
    std::string name, why;
    void* library = nullptr;
    if (!named.empty()) {
      // Made absolute: a bare name would be looked for in the system's folders.
      name = shown(named) + origin;
      std::error_code fault;
      const std::filesystem::path file = std::filesystem::absolute(named, fault);
      if (fault) {
        why = name + ": the working directory is of no use: " + fault.message();
      } else {
        library = loading::open(file, why);
      }
    } else {
      for (const std::string& usual : loading::usual_names()) {
        std::string said;
        name = usual;
        library = loading::open(usual, said);
        if (library != nullptr) break;
        why += (why.empty() ? "" : "; ") + said;
      }
    }
    if (library == nullptr) {
      throw Error(Code::runtime_missing, "ONNX Runtime cannot be loaded: " + why + "; install it, or name its library in " +
                                             library_variable + " or in the options");
    }
    const loading::GetApiBase entry = loading::entry_of(library);
    const OrtApiBase* base = entry == nullptr ? nullptr : entry();
    if (base == nullptr) {
      throw Error(Code::runtime_missing, name + ": is no ONNX Runtime (it has no OrtGetApiBase); name its library in " +
                                             library_variable + " or in the options");
    }
    const char* version = base->GetVersionString();
    version_ = version == nullptr ? "of an unknown version" : one_line(version, 60);
    api_ = base->GetApi(api_version);
    if (api_ == nullptr || !is_at_least(oldest_minor)) {
      throw Error(Code::runtime_too_old, name + ": is ONNX Runtime " + version_ + ", lpips needs 1." +
                                             std::to_string(oldest_minor) + " or newer; install that, or name another in " +
                                             library_variable + " or in the options");
    }
  }

  // Whether it is 1.`minor` or newer.
  bool is_at_least(int minor) const {
    int found_major = 0, found_minor = 0;
    if (std::sscanf(version_.c_str(), "%d.%d", &found_major, &found_minor) != 2) return false;
    return found_major > 1 || (found_major == 1 && found_minor >= minor);
  }

  const OrtApi& api() const { return *api_; }
  const std::string& version() const { return version_; }

  // A failed call is an Error with this code, its message `what` and ONNX Runtime's words.
  void check(OrtStatus* status, Code code, const std::string& what) const {
    if (status == nullptr) return;
    const std::unique_ptr<OrtStatus, decltype(api_->ReleaseStatus)> owner(status, api_->ReleaseStatus);
    const std::string words = words_of(api_->GetErrorMessage(status));
    // Of the allocator, of an arena with a limit, of C++ and of CUDA.
    for (const char* full : {"Failed to allocate memory", "smaller than requested bytes", "bad_alloc", "out of memory"}) {
      if (words.find(full) == std::string::npos) continue;
      throw Error(Code::memory, what + ": " + words + "; free some, or score smaller images or batches");
    }
    throw Error(code, what + ": " + words);
  }

 private:
  const OrtApi* api_ = nullptr;
  std::string version_;
};

// What a call that did not fail must have made. Where there is no memory for a status, ONNX Runtime returns none.
inline void check_made(const void* made, const std::string& what) {
  if (made == nullptr) {
    throw Error(Code::memory, what + ": there is no memory to say why; free some, or score smaller images or batches");
  }
}

// Something that ONNX Runtime made, and how it is released.
template <typename T>
using Owned = std::unique_ptr<T, void(ORT_API_CALL*)(T*)>;

// Calls a function of the API that makes something: made<OrtEnv>(library, api.ReleaseEnv, [&](OrtEnv** out) {...}).
template <typename T, typename Release, typename Make>
Owned<T> made(const Library& library, Release release, Code code, const std::string& what, Make make) {
  T* out = nullptr;
  library.check(make(&out), code, what);
  check_made(out, what);
  return Owned<T>(out, release);
}

}  // namespace lpips::detail
