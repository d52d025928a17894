# The CUDA path of _core: with nvcc, kernels compiled for every architecture into one image that becomes part of the
# extension, and the host code that runs them; without, the file that says so. Nothing of CUDA's is linked.
set(cuda_architectures 75 80 86 89 90 100 120) # from the PTX of the first, which also serves newer ones and those between

if(NOT CLR_NATIVE_CUDA MATCHES "^(AUTO|ON|OFF)$")
  message(FATAL_ERROR "CLR_NATIVE_CUDA=${CLR_NATIVE_CUDA} must be AUTO, ON or OFF")
endif()
if(CLR_NATIVE_CUDA STREQUAL "ON" AND NOT CMAKE_SYSTEM_NAME STREQUAL "Linux")
  message(FATAL_ERROR "CLR_NATIVE_CUDA=ON: CUDA is supported on Linux only, this is ${CMAKE_SYSTEM_NAME}; use AUTO")
endif()
set(cuda_is_built FALSE)
if(CLR_NATIVE_CUDA STREQUAL "ON" OR (CLR_NATIVE_CUDA STREQUAL "AUTO" AND CMAKE_SYSTEM_NAME STREQUAL "Linux"
                                     AND NOT CMAKE_CROSSCOMPILING))
  find_program(CLR_NATIVE_NVCC nvcc HINTS ENV CUDA_HOME PATH_SUFFIXES bin)
  if(CLR_NATIVE_NVCC)
    # nvcc alone knows where its headers are: what stands on the PATH may be a script in front of it.
    execute_process(COMMAND ${CLR_NATIVE_NVCC} --dryrun -E -x cu /dev/null ERROR_VARIABLE cuda_dryrun OUTPUT_QUIET)
    string(REGEX MATCHALL "-I[^ \"\n]+" cuda_includes "${cuda_dryrun}")
    list(TRANSFORM cuda_includes REPLACE "^-I" "")
    find_path(CLR_NATIVE_CUDA_INCLUDE cuda.h HINTS ${cuda_includes} NO_DEFAULT_PATH)
  endif()
  if(CLR_NATIVE_NVCC AND CLR_NATIVE_CUDA_INCLUDE)
    set(cuda_is_built TRUE)
  elseif(CLR_NATIVE_CUDA STREQUAL "ON")
    message(FATAL_ERROR "CLR_NATIVE_CUDA=ON needs nvcc (CLR_NATIVE_NVCC=${CLR_NATIVE_NVCC}) with its headers "
                        "(CLR_NATIVE_CUDA_INCLUDE=${CLR_NATIVE_CUDA_INCLUDE}): install the CUDA toolkit and put nvcc "
                        "on the PATH, or set CUDA_HOME or these")
  endif()
endif()

if(NOT cuda_is_built)
  message(STATUS "CUDA: not built (CLR_NATIVE_CUDA=${CLR_NATIVE_CUDA}, CLR_NATIVE_NVCC=${CLR_NATIVE_NVCC})")
  target_sources(_core PRIVATE csrc/cuda/absent.cpp)
  return()
endif()

message(STATUS "CUDA: ${CLR_NATIVE_NVCC}, headers in ${CLR_NATIVE_CUDA_INCLUDE}")
execute_process(COMMAND ${CLR_NATIVE_NVCC} --list-gpu-code OUTPUT_VARIABLE cuda_known COMMAND_ERROR_IS_FATAL ANY)
# Not compressed: a wheel is, and tests read from the installed package what they run.
set(cuda_flags -std=c++17 -fmad=false --threads 0 --no-compress -Xptxas -warn-spills)
if(CLR_NATIVE_WERROR)
  list(APPEND cuda_flags -Werror all-warnings -Xptxas -Werror)
endif()
set(cuda_code)
foreach(architecture ${cuda_architectures})
  if(cuda_known MATCHES "sm_${architecture}[ \n]")
    list(APPEND cuda_code ${architecture})
  endif()
endforeach()
# All machine code is made from the one PTX: that is faster than PTX for each, and tests of that PTX are tests of all.
list(GET cuda_code 0 cuda_ptx)
list(TRANSFORM cuda_code PREPEND sm_)
list(JOIN cuda_code "," cuda_code)
list(APPEND cuda_flags -gencode arch=compute_${cuda_ptx},code=[compute_${cuda_ptx},${cuda_code}])
set(cuda_image ${CMAKE_CURRENT_BINARY_DIR}/clr_native.fatbin)
add_custom_command(
  OUTPUT ${cuda_image}
  COMMAND ${CLR_NATIVE_NVCC} -fatbin ${cuda_flags} -I${CMAKE_CURRENT_SOURCE_DIR}/csrc -MD -MF ${cuda_image}.d
          -o ${cuda_image} ${CMAKE_CURRENT_SOURCE_DIR}/csrc/cuda/kernels.cu
  DEPENDS csrc/cuda/kernels.cu
  DEPFILE ${cuda_image}.d
  COMMENT "CUDA kernels" VERBATIM)
target_sources(_core PRIVATE csrc/cuda/device.cpp csrc/cuda/device_plan.cpp csrc/cuda/driver.cpp csrc/cuda/image.cpp
                             csrc/cuda/memory.cpp)
target_include_directories(_core SYSTEM PRIVATE ${CLR_NATIVE_CUDA_INCLUDE})
set_source_files_properties(csrc/cuda/image.cpp PROPERTIES OBJECT_DEPENDS ${cuda_image} COMPILE_DEFINITIONS
                                                           CLR_NATIVE_CUDA_IMAGE="${cuda_image}")
