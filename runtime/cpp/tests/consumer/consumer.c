#include <lpips/lpips.h>
#include <stdio.h>
#include <string.h>

static unsigned char black[64 * 64 * 3], white[64 * 64 * 3];

int main(int count, char** given) {
  lpips_error error;
  lpips_scorer* scorer = NULL;
  lpips_image a = {black, sizeof black, 64, 64, 0, LPIPS_RGB, 0}, b = {white, sizeof white, 64, 64, 0, LPIPS_RGB, 0};
  float distance = 0;
  if (count != 2) return 2;
  memset(white, 255, sizeof white);
  if (lpips_open(given[1], NULL, &scorer, &error) != LPIPS_OK ||
      lpips_score(scorer, &a, &b, 1, &distance, &error) != LPIPS_OK) {
    fprintf(stderr, "%s\n", error.message);
    lpips_close(scorer);
    return 1;
  }
  printf("%g\n", (double)distance);
  lpips_close(scorer);
  return 0;
}
