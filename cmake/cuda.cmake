# The CUDA path of _core: kernels compiled by nvcc into one image that becomes part of the extension, and the host code
# that runs them; or the file that says why they are missing. Nothing of CUDA's is linked.
#
# Sets CLR_NATIVE_CUDA_CODE, what the image holds as nvcc names it, empty for no image.
set(CLR_NATIVE_CUDA_ARCHITECTURES "" CACHE STRING "Compile machine code for these, as 80;90: see docs/cuda.md")
# A value that is empty stays so in the cache: what the environment says is heard anew by each configuration.
string(REGEX REPLACE "[ ,;]+" ";" cuda_asked "${CLR_NATIVE_CUDA_ARCHITECTURES}")
if(NOT cuda_asked)
  string(REGEX REPLACE "[ ,;]+" ";" cuda_asked "$ENV{CLR_NATIVE_CUDA_ARCHITECTURES}")
endif()
set(cuda_architectures 75 80 86 89 90 100 120) # what ON compiles for, as far as nvcc knows it
# All machine code is made from the PTX of the first that nvcc knows, which also serves newer ones and those between: that
# is faster than PTX for each, and tests of that PTX are tests of all. So it is the same whatever is asked for.
list(GET cuda_architectures 0 cuda_ptx)
list(REMOVE_DUPLICATES cuda_asked)
set(cuda_turn_on "put nvcc on the PATH (or set CUDA_HOME), then pip install with -C cmake.define.CLR_NATIVE_CUDA=ON")

if(NOT CLR_NATIVE_CUDA MATCHES "^(AUTO|ON|OFF)$")
  message(FATAL_ERROR "CLR_NATIVE_CUDA=${CLR_NATIVE_CUDA} must be AUTO, ON or OFF")
endif()

# --- nvcc, and what it is to compile for -------------------------------------------------------------------------------
set(CLR_NATIVE_CUDA_CODE)
set(cuda_missing)
if(CLR_NATIVE_CUDA STREQUAL "OFF")
  set(cuda_missing "CLR_NATIVE_CUDA=OFF was given")
elseif(NOT CMAKE_SYSTEM_NAME STREQUAL "Linux")
  set(cuda_missing "CUDA is supported on Linux only, this is ${CMAKE_SYSTEM_NAME}")
elseif(CLR_NATIVE_CUDA STREQUAL "AUTO" AND CMAKE_CROSSCOMPILING AND NOT cuda_asked)
  set(cuda_missing "the build was for another machine, whose GPUs it could not see")
else()
  find_program(CLR_NATIVE_NVCC nvcc HINTS ENV CUDA_HOME PATH_SUFFIXES bin)
  if(CLR_NATIVE_NVCC)
    # nvcc alone knows where its headers are: what stands on the PATH may be a script in front of it.
    execute_process(COMMAND ${CLR_NATIVE_NVCC} --dryrun -E -x cu /dev/null ERROR_VARIABLE cuda_dryrun OUTPUT_QUIET)
    string(REGEX MATCHALL "-I[^ \"\n]+" cuda_includes "${cuda_dryrun}")
    list(TRANSFORM cuda_includes REPLACE "^-I" "")
    find_path(CLR_NATIVE_CUDA_INCLUDE cuda.h HINTS ${cuda_includes} NO_DEFAULT_PATH)
    execute_process(COMMAND ${CLR_NATIVE_NVCC} --list-gpu-code OUTPUT_VARIABLE cuda_known)
    foreach(architecture ${cuda_architectures})
      if(cuda_known MATCHES "sm_${architecture}[ \n]")
        set(cuda_ptx ${architecture})
        break()
      endif()
    endforeach()
  endif()
  if(NOT CLR_NATIVE_NVCC)
    list(APPEND cuda_missing "nvcc was not found")
  elseif(NOT CLR_NATIVE_CUDA_INCLUDE)
    list(APPEND cuda_missing "nvcc was found, but not its headers (CLR_NATIVE_CUDA_INCLUDE)")
  endif()
  if(cuda_asked)
    set(cuda_gpus ${cuda_asked})
  elseif(CLR_NATIVE_CUDA STREQUAL "AUTO")
    execute_process(
      COMMAND ${Python_EXECUTABLE} ${CMAKE_CURRENT_SOURCE_DIR}/cmake/visible_gpus.py ${cuda_ptx}
      RESULT_VARIABLE cuda_failed OUTPUT_VARIABLE cuda_gpus ERROR_VARIABLE cuda_no_gpu
      OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_STRIP_TRAILING_WHITESPACE)
    if(cuda_failed)
      string(REGEX REPLACE "[\n;\"\\]+" " " cuda_no_gpu "${cuda_no_gpu}") # it becomes a string of C++
      list(APPEND cuda_missing "the build saw no GPU for them: ${cuda_no_gpu}")
    endif()
  else()
    set(cuda_gpus ${cuda_architectures})
  endif()
endif()
if(NOT cuda_missing)
  foreach(architecture ${cuda_asked})
    set(cuda_is_known FALSE)
    if(architecture MATCHES "^[0-9]+$" AND cuda_known MATCHES "sm_${architecture}[ \n]")
      set(cuda_is_known TRUE)
    endif()
    if(NOT cuda_is_known OR architecture LESS cuda_ptx)
      string(REGEX MATCHALL "[0-9]+" cuda_known "${cuda_known}")
      list(JOIN cuda_known ", " cuda_known)
      message(FATAL_ERROR "CLR_NATIVE_CUDA_ARCHITECTURES has ${architecture}, where the kernels need ${cuda_ptx} or more, "
                          "and ${CLR_NATIVE_NVCC} knows ${cuda_known}")
    endif()
  endforeach()
  foreach(architecture ${cuda_gpus})
    if(cuda_known MATCHES "sm_${architecture}[ \n]") # what is newer than this nvcc has the PTX
      list(APPEND CLR_NATIVE_CUDA_CODE sm_${architecture})
    endif()
  endforeach()
  list(APPEND CLR_NATIVE_CUDA_CODE compute_${cuda_ptx})
endif()

if(cuda_missing)
  list(JOIN cuda_missing ", and " cuda_missing)
  if(CLR_NATIVE_CUDA STREQUAL "ON")
    message(FATAL_ERROR "CLR_NATIVE_CUDA=ON: ${cuda_missing}. Install the CUDA toolkit and ${cuda_turn_on}, or leave "
                        "CLR_NATIVE_CUDA=ON out")
  endif()
  set(cuda_why "this build has no CUDA kernels: ${cuda_missing}. To have them, ${cuda_turn_on}")
  message(STATUS "CUDA: ${cuda_why}")
  target_sources(_core PRIVATE csrc/cuda/no_cuda.cpp)
  set_property(SOURCE csrc/cuda/no_cuda.cpp PROPERTY COMPILE_DEFINITIONS CLR_NATIVE_WHY_NO_CUDA="${cuda_why}")
  return()
endif()

# --- the image ---------------------------------------------------------------------------------------------------------
message(STATUS "CUDA: ${CLR_NATIVE_NVCC}, headers in ${CLR_NATIVE_CUDA_INCLUDE}, for ${CLR_NATIVE_CUDA_CODE}")
# Not compressed: a wheel is, and tests read from the installed package what they run.
set(cuda_flags -std=c++17 -fmad=false --threads 0 --no-compress)
if(CLR_NATIVE_WERROR)
  list(APPEND cuda_flags -Werror all-warnings)
endif()
list(JOIN CLR_NATIVE_CUDA_CODE "," cuda_code)
set(cuda_image ${CMAKE_CURRENT_BINARY_DIR}/clr_native.fatbin)
add_custom_command(
  OUTPUT ${cuda_image}
  COMMAND ${CLR_NATIVE_NVCC} -fatbin ${cuda_flags} -gencode arch=compute_${cuda_ptx},code=[${cuda_code}]
          -I${CMAKE_CURRENT_SOURCE_DIR}/csrc -MD -MF ${cuda_image}.d -o ${cuda_image}
          ${CMAKE_CURRENT_SOURCE_DIR}/csrc/cuda/kernels.cu
  DEPENDS csrc/cuda/kernels.cu
  DEPFILE ${cuda_image}.d
  COMMENT "CUDA kernels" VERBATIM)
add_custom_target(clr_native_image DEPENDS ${cuda_image})
target_sources(_core PRIVATE csrc/cuda/device.cpp csrc/cuda/device_plan.cpp csrc/cuda/device_tables.cpp
                             csrc/cuda/device_work.cpp csrc/cuda/driver.cpp csrc/cuda/image.cpp csrc/cuda/memory.cpp)
target_include_directories(_core SYSTEM PRIVATE ${CLR_NATIVE_CUDA_INCLUDE})
target_compile_definitions(_core PRIVATE CLR_NATIVE_LEAST_CAPABILITY=${cuda_ptx})
set_source_files_properties(csrc/cuda/image.cpp PROPERTIES OBJECT_DEPENDS ${cuda_image} COMPILE_DEFINITIONS
                                                           CLR_NATIVE_CUDA_IMAGE="${cuda_image}")
