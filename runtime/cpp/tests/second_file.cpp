#include <lpips/lpips.hpp>

float score_in_another_file(const lpips::Scorer& scorer, const lpips::Image& a, const lpips::Image& b);

float score_in_another_file(const lpips::Scorer& scorer, const lpips::Image& a, const lpips::Image& b) {
  return scorer.score(a, b);
}
