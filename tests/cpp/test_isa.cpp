// Which instruction set is chosen, and what CLR_NATIVE_ISA may say.
#include <doctest/doctest.h>

#include <stdexcept>
#include <string>

#include "cpu/isa.h"

namespace {

std::string refusal(const char* wanted) {
  try {
    clr::choose_isa(wanted);
  } catch (const std::invalid_argument& error) {
    return error.what();
  }
  return "";
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST_CASE("isa: the baseline comes first and is always there") {
  const auto& isas = clr::compiled_isas();
  REQUIRE_FALSE(isas.empty());
  CHECK(std::string(isas.front().name) == "baseline");
  CHECK(isas.front().detected);
}

TEST_CASE("isa: unset or empty means the widest one detected") {
  std::string widest;
  for (const clr::Isa& isa : clr::compiled_isas()) {
    if (isa.detected) widest = isa.name;
  }
  CHECK(clr::choose_isa(nullptr).name == widest);
  CHECK(clr::choose_isa("").name == widest);
}

TEST_CASE("isa: a name chooses exactly that one") {
  for (const clr::Isa& isa : clr::compiled_isas()) {
    if (isa.detected) {
      CHECK(clr::choose_isa(isa.name).kernels == isa.kernels);
    } else {
      CHECK_FALSE(refusal(isa.name).empty());
    }
  }
}

TEST_CASE("isa: another name is an error that says which there are") {
  for (const char* const wanted : {"sse9", "AVX2", "avx2 ", "neonn"}) {
    const std::string error = refusal(wanted);
    CHECK(contains(error, "CLR_NATIVE_ISA=" + std::string(wanted) + " "));
    for (const clr::Isa& isa : clr::compiled_isas()) {
      if (isa.detected) CHECK(contains(error, isa.name));
    }
  }
}

TEST_CASE("isa: every instruction set offers every kernel") {
  for (const clr::Isa& isa : clr::compiled_isas()) {
    const clr::CpuKernels& k = *isa.kernels;
    CAPTURE(std::string(isa.name));
    CHECK((k.update != nullptr && k.evaluate != nullptr && k.fill_range != nullptr));
    CHECK((k.evaluate_alike != nullptr && k.sum_squares != nullptr && k.all_finite != nullptr));
  }
}
