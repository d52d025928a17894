// Which piece a step falls into, and the piece's own number of it.
#include <doctest/doctest.h>

#include <vector>

#include "support/bits.h"
#include "support/policies.h"

using clr::Piece;
using clr_test::kLastStep;
using clr_test::Random;

namespace {

std::vector<Piece> starting_at(const std::vector<std::uint64_t>& firsts) {
  std::vector<Piece> pieces;
  for (const std::uint64_t first : firsts) pieces.push_back({first, UINT64_MAX, clr_test::Schedule().policy()});
  return pieces;
}

// Its number among the pieces, found one after the other.
std::size_t expected(const std::vector<Piece>& pieces, std::uint64_t step) {
  std::size_t i = pieces.size() - 1;
  while (pieces[i].first > step) --i;
  return i;
}

}  // namespace

TEST_CASE("piece: the last one that starts at or before the step") {
  Random random(1);
  for (std::size_t count = 1; count < 40; ++count) {
    std::vector<std::uint64_t> firsts = {0};
    while (firsts.size() < count)
      firsts.push_back(firsts.back() + 1 + random.below(std::uint64_t{1} << random.below(40)));
    const std::vector<Piece> pieces = starting_at(firsts);
    for (const std::uint64_t first : firsts) {
      for (const std::uint64_t step : {first - (first != 0 ? 1 : 0), first, first + 1}) {
        CAPTURE(count);
        CAPTURE(step);
        const Piece* const found = &clr::piece_at(pieces.data(), pieces.size(), step);
        CHECK(static_cast<std::size_t>(found - pieces.data()) == expected(pieces, step));
      }
    }
    CHECK(&clr::piece_at(pieces.data(), pieces.size(), kLastStep) == &pieces.back());
  }
}

TEST_CASE("piece: one that starts at the last step of all") {
  const std::vector<Piece> pieces = starting_at({0, 1, kLastStep});
  CHECK(&clr::piece_at(pieces.data(), 3, kLastStep) == &pieces[2]);
  CHECK(&clr::piece_at(pieces.data(), 3, kLastStep - 1) == &pieces[1]);
  CHECK(&clr::piece_at(pieces.data(), 3, 0) == &pieces[0]);
}

TEST_CASE("piece: its own step is counted from its first and stops at its last") {
  Piece piece = starting_at({0}).front();
  piece.first = 100;
  piece.last = 7;
  const std::uint64_t steps[][2] = {{100, 0}, {101, 1}, {106, 6}, {107, 7}, {108, 7}, {kLastStep, 7}};
  for (const auto& step : steps) CHECK(clr::step_in(piece, step[0]) == step[1]);
  piece.last = 0;
  for (const auto& step : steps) CHECK(clr::step_in(piece, step[0]) == 0);
  piece.last = UINT64_MAX;
  CHECK(clr::step_in(piece, kLastStep) == kLastStep - 100);
}
