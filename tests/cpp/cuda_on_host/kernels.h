#pragma once

#include "cuda/tables.h"

extern "C" void clr_step(clr::DeviceState* state, clr::DeviceWork work, clr::DeviceStep step);
extern "C" void clr_step_float32(clr::DeviceState* state, clr::DeviceWork work, clr::DeviceStep step);
extern "C" void clr_step_float64(clr::DeviceState* state, clr::DeviceWork work, clr::DeviceStep step);
extern "C" void clr_step_bfloat16(clr::DeviceState* state, clr::DeviceWork work, clr::DeviceStep step);
extern "C" void clr_step_float16(clr::DeviceState* state, clr::DeviceWork work, clr::DeviceStep step);
extern "C" void clr_norm(clr::DeviceState* state, clr::DeviceWork work, clr::DeviceStep step);
extern "C" void clr_share(clr::DeviceState* state, clr::DeviceWork work, clr::DeviceStep step);
