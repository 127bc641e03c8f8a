/* The ONNX Runtime of $LPIPS_ONNXRUNTIME, or the system's, which writes down how sessions are set up. */
#include <dlfcn.h>
#include <onnxruntime_c_api.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char* recorded(void);
void pretend(const char* of_version);

static char calls[4096];
static char version[32];
static const OrtApi* real;
static OrtApi changed;

static void record(const char* form, ...) {
  va_list values;
  size_t used = strlen(calls);
  va_start(values, form);
  vsnprintf(calls + used, sizeof calls - used, form, values);
  va_end(values);
}

/* All calls since `pretend`, a line each. */
const char* recorded(void) { return calls; }

/* To be of this version from now on. */
void pretend(const char* of_version) {
  calls[0] = '\0';
  snprintf(version, sizeof version, "%s", of_version);
}

static OrtStatusPtr ORT_API_CALL threads(OrtSessionOptions* options, int count) {
  record("threads=%d\n", count);
  return real->SetIntraOpNumThreads(options, count);
}

static OrtStatusPtr ORT_API_CALL optimisations(OrtSessionOptions* options, GraphOptimizationLevel level) {
  record("optimisations=%d\n", (int)level);
  return real->SetSessionGraphOptimizationLevel(options, level);
}

static OrtStatusPtr ORT_API_CALL no_memory_patterns(OrtSessionOptions* options) {
  record("no memory patterns\n");
  return real->DisableMemPattern(options);
}

static OrtStatusPtr ORT_API_CALL entry(OrtSessionOptions* options, const char* key, const char* value) {
  record("%s=%s\n", key, value);
  return real->AddSessionConfigEntry(options, key, value);
}

static const OrtApiBase* base_of_real(void) {
  const char* file = getenv("LPIPS_ONNXRUNTIME");
  void* library = dlopen(file != NULL && *file != '\0' ? file : "libonnxruntime.so.1", RTLD_NOW | RTLD_LOCAL);
  const OrtApiBase* (*get)(void) = NULL;
  if (library == NULL) return NULL;
  *(void**)&get = dlsym(library, "OrtGetApiBase");
  return get == NULL ? NULL : get();
}

static const OrtApi* ORT_API_CALL get_api(uint32_t number) {
  const OrtApiBase* base = base_of_real();
  if (base == NULL) return NULL;
  real = base->GetApi(number);
  if (real == NULL) return NULL;
  /* Up to the first that came with 1.12: an older library has no more. */
  memcpy(&changed, real, offsetof(OrtApi, AddExternalInitializers));
  changed.SetIntraOpNumThreads = threads;
  changed.SetSessionGraphOptimizationLevel = optimisations;
  changed.DisableMemPattern = no_memory_patterns;
  changed.AddSessionConfigEntry = entry;
  return &changed;
}

static const char* ORT_API_CALL get_version(void) { return version; }

static const OrtApiBase base = {get_api, get_version};

const OrtApiBase* ORT_API_CALL OrtGetApiBase(void) { return &base; }
