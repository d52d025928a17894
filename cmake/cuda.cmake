# The CUDA path of _core: with nvcc, kernels compiled for every architecture into one image that becomes part of the
# extension, and the host code that runs them; without, the file that says so. Nothing of CUDA's is linked.
set(cuda_architectures 75 80 86 89 90 100 120)
set(cuda_ptx 75) # what newer ones, and those between, are served from

set(cuda_is_built FALSE)
if(CLR_NATIVE_CUDA STREQUAL "ON" OR (CLR_NATIVE_CUDA STREQUAL "AUTO" AND CMAKE_SYSTEM_NAME STREQUAL "Linux"
                                     AND NOT CMAKE_CROSSCOMPILING))
  find_program(CLR_NATIVE_NVCC nvcc)
  if(CLR_NATIVE_NVCC)
    # Known to nvcc only: /usr/local/bin/nvcc may be a script in front of it.
    execute_process(COMMAND ${CLR_NATIVE_NVCC} --list-gpu-code OUTPUT_VARIABLE cuda_known COMMAND_ERROR_IS_FATAL ANY)
    execute_process(COMMAND ${CLR_NATIVE_NVCC} -E -x cu /dev/null --verbose ERROR_VARIABLE cuda_verbose OUTPUT_QUIET
                    COMMAND_ERROR_IS_FATAL ANY)
    string(REGEX MATCH "#\\$ TOP=([^\n]*)" cuda_top "${cuda_verbose}")
    find_path(CLR_NATIVE_CUDA_INCLUDE cuda.h HINTS ${CMAKE_MATCH_1}/include ${CMAKE_MATCH_1}/targets/x86_64-linux/include
              NO_DEFAULT_PATH)
    if(CLR_NATIVE_CUDA_INCLUDE)
      set(cuda_is_built TRUE)
    elseif(CLR_NATIVE_CUDA STREQUAL "ON")
      message(FATAL_ERROR "CLR_NATIVE_CUDA=ON: ${CLR_NATIVE_NVCC} was found, but no cuda.h beside it: install the CUDA toolkit, or set CLR_NATIVE_CUDA_INCLUDE")
    endif()
  elseif(CLR_NATIVE_CUDA STREQUAL "ON")
    message(FATAL_ERROR "CLR_NATIVE_CUDA=ON needs nvcc on the PATH: install the CUDA toolkit, or set CLR_NATIVE_NVCC")
  endif()
endif()

if(cuda_is_built)
  set(cuda_targets -gencode arch=compute_${cuda_ptx},code=compute_${cuda_ptx})
  foreach(architecture ${cuda_architectures})
    if(cuda_known MATCHES "sm_${architecture}\n")
      list(APPEND cuda_targets -gencode arch=compute_${architecture},code=sm_${architecture})
    endif()
  endforeach()
  set(cuda_image ${CMAKE_CURRENT_BINARY_DIR}/clr_native.fatbin)
  add_custom_command(
    OUTPUT ${cuda_image}
    COMMAND ${CLR_NATIVE_NVCC} -fatbin -std=c++17 -fmad=false -I${CMAKE_CURRENT_SOURCE_DIR}/csrc --threads 0
            ${cuda_targets} -MD -MF ${cuda_image}.d -o ${cuda_image} ${CMAKE_CURRENT_SOURCE_DIR}/csrc/cuda/kernels.cu
    DEPENDS csrc/cuda/kernels.cu
    DEPFILE ${cuda_image}.d
    COMMENT "CUDA kernels" VERBATIM)
  target_sources(_core PRIVATE csrc/cuda/device.cpp csrc/cuda/device_plan.cpp csrc/cuda/driver.cpp csrc/cuda/image.cpp
                               csrc/cuda/memory.cpp)
  target_include_directories(_core SYSTEM PRIVATE ${CLR_NATIVE_CUDA_INCLUDE})
  set_property(SOURCE csrc/cuda/image.cpp PROPERTY COMPILE_DEFINITIONS CLR_NATIVE_CUDA_IMAGE="${cuda_image}")
  set_property(SOURCE csrc/cuda/image.cpp PROPERTY OBJECT_DEPENDS ${cuda_image})
  message(STATUS "CUDA: ${CLR_NATIVE_NVCC}, ${CLR_NATIVE_CUDA_INCLUDE}")
else()
  target_sources(_core PRIVATE csrc/cuda/absent.cpp)
  message(STATUS "CUDA: not built")
endif()
