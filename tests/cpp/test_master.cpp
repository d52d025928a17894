// 16-bit parameters beside float32 weights.
#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <vector>

#include "cpu/master.h"
#include "kernel/half.h"

namespace {

// Every 16-bit number: rounded from itself, and from just beside it.
template <class Half>
void check_rounding(clr::DType dtype) {
  for (const float nudge : {1.0f, 1.0f + 0x1p-12f, 1.0f - 0x1p-12f}) {
    std::vector<float> from;
    for (std::uint32_t bits = 0; bits < 0x10000; ++bits) from.push_back(nudge * clr::widened(static_cast<Half>(bits)));
    std::vector<Half> to(from.size());
    clr::round_to_half(dtype, from.data(), to.data(), static_cast<std::int64_t>(from.size()));
    for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
      const float value = clr::widened(static_cast<Half>(bits)), back = clr::widened(to[bits]);
      const bool is_subnormal_half = dtype == clr::DType::float16 && std::fabs(value) < 0x1p-13f;
      CHECK((back == value || (std::isnan(back) && std::isnan(value)) || (nudge != 1.0f && is_subnormal_half)));
    }
  }
}

// A master is left alone where the parameter is its copy, and becomes the parameter where that was changed.
template <class Half>
void check_obedience(clr::DType dtype) {
  std::vector<float> master = {1.0f + 0x1p-20f, 2.0f, -3.0f, NAN, 0.0f};
  std::vector<Half> parameter(master.size());
  clr::round_to_half(dtype, master.data(), parameter.data(), 5);
  const std::vector<float> before = master;
  clr::obey_parameter(dtype, parameter.data(), master.data(), 3);
  CHECK(std::vector<float>(master.begin(), master.begin() + 3) ==
        std::vector<float>(before.begin(), before.begin() + 3));
  const float changed[] = {4.0f, 2.0f, 0.5f, 1.0f, NAN};
  clr::round_to_half(dtype, changed, parameter.data(), 5);
  clr::obey_parameter(dtype, parameter.data(), master.data(), 5);
  CHECK(std::vector<float>(master.begin(), master.begin() + 4) == std::vector<float>({4.0f, 2.0f, 0.5f, 1.0f}));
  CHECK(std::isnan(master[4]));
}

}  // namespace

TEST_CASE("master: rounding is to nearest") {
  check_rounding<clr::Bfloat16>(clr::DType::bfloat16);
  check_rounding<clr::Float16>(clr::DType::float16);
}

TEST_CASE("master: a changed parameter is obeyed") {
  check_obedience<clr::Bfloat16>(clr::DType::bfloat16);
  check_obedience<clr::Float16>(clr::DType::float16);
}
