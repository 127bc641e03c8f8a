/* LPIPS between images as a plain C ABI, for C, Rust, C#, Swift, Go: the functions of lpips.hpp behind a shared library.
 *
 *   lpips_error error;
 *   lpips_scorer* scorer = NULL;
 *   if (lpips_open("lpips_alex_fp32.onnx", NULL, &scorer, &error) != LPIPS_OK) { puts(error.message); return 1; }
 *   lpips_image a = {pixels_a, size_a, width, height, 0, LPIPS_RGB, 0}, b = {pixels_b, size_b, width, height, 0, LPIPS_RGB, 0};
 *   float distance;
 *   lpips_score(scorer, &a, &b, 1, &distance, &error);
 *   lpips_close(scorer);
 *
 * Text is UTF-8. A function that can fail returns a code, and fills `error` if that is not NULL: the caller's own, since
 * the last error of a thread would be lost where a language moves calls between threads, as Go does. What a function
 * makes is NULL after a failure. A scorer may be used from many threads at once, and closed once none does.
 */
#ifndef LPIPS_LPIPS_H
#define LPIPS_LPIPS_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#if defined(LPIPS_BUILDING)
#define LPIPS_API __declspec(dllexport)
#else
#define LPIPS_API __declspec(dllimport)
#endif
#else
#define LPIPS_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* What a function returns; numbers may be added, none changes. */
enum {
  LPIPS_OK = 0,
  LPIPS_USAGE = 1,             /* an argument that cannot be meant */
  LPIPS_BUFFER = 2,            /* null, too short for its image, or with a stride smaller than a row */
  LPIPS_SHAPE = 3,             /* sides too small, that differ or overflow; counts that do not fit */
  LPIPS_VALUE = 4,             /* floats that are not finite or not in their range, or where 8-bit pixels are needed */
  LPIPS_TRANSPARENT = 5,       /* pixels with an alpha below 255 */
  LPIPS_MODEL_NOT_FOUND = 10,  /* no model at this path, or it cannot be read */
  LPIPS_FOREIGN_MODEL = 11,    /* no ONNX model of lpips-export, or of another contract or export */
  LPIPS_DAMAGED_MODEL = 12,    /* not what its seal, its metadata or the contract promise */
  LPIPS_RUNTIME_MISSING = 20,  /* no ONNX Runtime where it was looked for, or a library that is none */
  LPIPS_RUNTIME_TOO_OLD = 21,  /* an ONNX Runtime that cannot run these models */
  LPIPS_UNKNOWN_PROVIDER = 30, /* no execution provider of this name */
  LPIPS_PROVIDER = 31,         /* it is not in this ONNX Runtime, did not start, or failed */
  LPIPS_FOREIGN_FEATURES = 40, /* features that another model, version or provider made */
  LPIPS_MEMORY = 50,           /* not enough of it */
  LPIPS_INTERNAL = 99          /* a fault of ours */
};

/* lpips_image.format. Interleaved 8-bit pixels first; of RGBA and BGRA an alpha below 255 is an error, of RGBX and BGRX
 * the fourth byte is ignored. Planar: three planes of float, R, G, B, in 0..1 or in -1..1; no stride. */
enum {
  LPIPS_RGB = 0,
  LPIPS_BGR = 1,
  LPIPS_RGBA = 2,
  LPIPS_BGRA = 3,
  LPIPS_RGBX = 4,
  LPIPS_BGRX = 5,
  LPIPS_PLANAR_UNIT = 16,
  LPIPS_PLANAR_SYMMETRIC = 17
};

typedef struct lpips_scorer lpips_scorer;
typedef struct lpips_detail lpips_detail;
typedef struct lpips_features lpips_features;

typedef struct lpips_error {
  int32_t code;
  char message[1020]; /* one line that names the thing, what is wrong and what to do; cut to fit, ends with a zero */
} lpips_error;

/* All zeros but `size` are the defaults. Later versions append fields, and know by `size` which of them are there. */
typedef struct lpips_options {
  size_t size;             /* sizeof(lpips_options) */
  const char* onnxruntime; /* ONNX Runtime's library; NULL: $LPIPS_ONNXRUNTIME, then the system's */
  const char* provider;    /* cpu, cuda, cuda:1; NULL: cpu */
  int32_t threads;         /* on the CPU, 1 to 1024; 0: the cores that this process may use */
  int32_t quick_start;     /* not 0: open in less time, later runs take up to 1.4 times theirs */
} lpips_options;

/* An image of the caller's, kept until the call returns. Arrays of them have its size, which never changes. */
typedef struct lpips_image {
  const void* data;
  size_t bytes; /* that may be read from data on */
  int64_t width;
  int64_t height;
  size_t stride; /* bytes from one row to the next; 0: rows follow each other */
  int32_t format;
  int32_t reserved; /* 0 */
} lpips_image;

/* Of the library, as "0.1.0". */
LPIPS_API const char* lpips_version(void);

/* What a code means, in some words; never NULL. */
LPIPS_API const char* lpips_code_message(int32_t code);

/* Open a model; options may be NULL. */
LPIPS_API int32_t lpips_open(const char* model, const lpips_options* options, lpips_scorer** scorer, lpips_error* error);
LPIPS_API void lpips_close(lpips_scorer* scorer);

/* The model's metadata by its key, such as "net" or "min_size", and "onnxruntime", the version of ONNX Runtime. NULL for
 * other keys. Owned by the scorer. */
LPIPS_API const char* lpips_info(const lpips_scorer* scorer, const char* key);

/* `count` pairs of images of one size -> as many distances. */
LPIPS_API int32_t lpips_score(const lpips_scorer* scorer, const lpips_image* reference, const lpips_image* distorted,
                              size_t count, float* distances, lpips_error* error);

/* The same with all that a run says. */
LPIPS_API int32_t lpips_run(const lpips_scorer* scorer, const lpips_image* reference, const lpips_image* distorted,
                            size_t count, lpips_detail** detail, lpips_error* error);

/* Encode images once, to compare them often. Needs the two models of `lpips-export --split` beside the first. */
LPIPS_API int32_t lpips_encode(const lpips_scorer* scorer, const lpips_image* images, size_t count,
                               lpips_features** features, lpips_error* error);
/* One reference for all, or as many as distorted. */
LPIPS_API int32_t lpips_compare(const lpips_scorer* scorer, const lpips_features* reference,
                                const lpips_features* distorted, lpips_detail** detail, lpips_error* error);
LPIPS_API size_t lpips_features_count(const lpips_features* features);
LPIPS_API void lpips_features_free(lpips_features* features);

/* Of a detail: pairs N; distances [N]; depths L; their shares [N,L]; the map of depth k [N,height,width], NULL for k of no
 * depth. Memory belongs to the detail. */
LPIPS_API size_t lpips_detail_count(const lpips_detail* detail);
LPIPS_API const float* lpips_detail_distances(const lpips_detail* detail);
LPIPS_API size_t lpips_detail_depths(const lpips_detail* detail);
LPIPS_API const float* lpips_detail_layers(const lpips_detail* detail);
LPIPS_API const float* lpips_detail_depth(const lpips_detail* detail, size_t k, int64_t* height, int64_t* width);
/* The full-size map [N,height,width], made anew into `values` floats of the caller's; height, width: of the images. */
LPIPS_API int32_t lpips_detail_map(const lpips_detail* detail, float* map, size_t values, lpips_error* error);
LPIPS_API void lpips_detail_size(const lpips_detail* detail, int64_t* height, int64_t* width);
LPIPS_API void lpips_detail_free(lpips_detail* detail);

#ifdef __cplusplus
}
#endif

#endif
