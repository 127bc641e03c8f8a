/* An ONNX Runtime of long ago: it knows its version, and no API that anybody asks it for. */
#include <onnxruntime_c_api.h>

static const OrtApi* ORT_API_CALL get_api(uint32_t version) {
  (void)version;
  return NULL;
}

static const char* ORT_API_CALL get_version(void) { return "1.2.3"; }

static const OrtApiBase base = {get_api, get_version};

const OrtApiBase* ORT_API_CALL OrtGetApiBase(void) { return &base; }
