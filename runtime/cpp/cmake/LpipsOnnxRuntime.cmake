# Finds ONNX Runtime's C header: LPIPS_ONNXRUNTIME_INCLUDE_DIR, from itself, or from ONNXRUNTIME_ROOT, an unpacked official
# release, as a variable of CMake or of the environment, or where the system has it.
if(DEFINED CACHE{ONNXRUNTIME_ROOT})
  # As -D gave it: with a type, a relative path becomes one of the folder that cmake was called in.
  set(ONNXRUNTIME_ROOT "" CACHE PATH "An unpacked official release of ONNX Runtime")
endif()
find_path(
  LPIPS_ONNXRUNTIME_INCLUDE_DIR onnxruntime_c_api.h
  HINTS "${ONNXRUNTIME_ROOT}/include" "$ENV{ONNXRUNTIME_ROOT}/include"
  PATH_SUFFIXES onnxruntime onnxruntime/core/session)
if(NOT LPIPS_ONNXRUNTIME_INCLUDE_DIR)
  set(LPIPS_ONNXRUNTIME_MISSING
      "onnxruntime_c_api.h is missing; set ONNXRUNTIME_ROOT to an unpacked official release of ONNX Runtime, or LPIPS_ONNXRUNTIME_INCLUDE_DIR to the folder that holds it")
  if(NOT "$ENV{ONNXRUNTIME_ROOT}" STREQUAL "" AND NOT IS_ABSOLUTE "$ENV{ONNXRUNTIME_ROOT}")
    # CMake does not tell the folder that it was called in.
    string(APPEND LPIPS_ONNXRUNTIME_MISSING "; ONNXRUNTIME_ROOT=$ENV{ONNXRUNTIME_ROOT} of the environment is a relative path, give an absolute one")
  endif()
  if(NOT CMAKE_FIND_PACKAGE_NAME)
    message(FATAL_ERROR "${LPIPS_ONNXRUNTIME_MISSING}")
  endif()
endif()
