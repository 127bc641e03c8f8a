/* lpips.h from C. What the library computes, tests/cpp/test_c_abi.py looks at. */
#include <lpips/lpips.h>
#include <stdio.h>
#include <string.h>

static int failed(const char* what) {
  printf("failed: %s\n", what);
  return 1;
}

int main(void) {
  lpips_error error;
  lpips_options options = {sizeof(lpips_options), NULL, NULL, 0, 0};
  lpips_scorer* scorer = NULL;
  if (lpips_version()[0] == '\0') return failed("version");
  if (lpips_open("/nowhere/model.onnx", &options, &scorer, &error) == LPIPS_OK) return failed("open");
  if (scorer != NULL || error.code == LPIPS_OK || strlen(error.message) == 0) return failed("error");
  if (lpips_open(NULL, NULL, &scorer, NULL) != LPIPS_USAGE) return failed("null");
  lpips_close(NULL);
  lpips_detail_free(NULL);
  lpips_features_free(NULL);
  return 0;
}
