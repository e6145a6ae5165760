#include "schedule/matmul.h"
#include "schedule/arith.h"

/* A tile of 128 x 128 takes about 0.15 microseconds for a product of a step where two work-groups share a unit; the
 * second kernel that adds pieces takes some 4, and each piece's sums go to memory and back at about 0.05 a tile.
 * Measured on an H100; only their ratio matters. */
#define PRODUCT_TIME 0.15
#define FINISH_TIME  4.0
#define PART_TIME    0.05

/* Tile rows share columns of b while they are in the second cache: a few, or all where a stays there and b does not.
 */
enum { BAND = 8, MAX_PARTS = 16, MIN_STEPS = 8 };

/* Rounds of all work-groups that the tiles of the last round take when each is cut into `parts`, in times of a tile.
 */
static double last_round(int64_t tiles, int64_t groups, int64_t parts, double tile_time) {
  const double rounds = (double)div_up(tiles * parts, groups) / (double)parts;
  if (parts == 1) return rounds;
  return rounds + (FINISH_TIME + PART_TIME * (double)(tiles * parts)) / tile_time;
}

matmul_plan schedule_matmul(const schedule_device *d, const matmul_tile *tile, const matmul_work *w) {
  const int64_t groups = div_up((int64_t)d->compute_units * tile->groups_per_unit, w->batch);
  const int64_t tiles_m = div_up(w->m, tile->m), tiles_n = div_up(w->n, tile->n), tiles = tiles_m * tiles_n;
  const int64_t left = tiles % groups;
  const double tile_time = PRODUCT_TIME * (double)(w->steps * w->products);
  int64_t parts = 1;
  for (int64_t p = 2; p <= MAX_PARTS && p * MIN_STEPS <= w->steps; p++)
    if (last_round(left, groups, p, tile_time) < last_round(left, groups, parts, tile_time)) parts = p;
  const int64_t whole = parts == 1 ? tiles : tiles - left, units = whole + (tiles - whole) * parts;
  return (matmul_plan){.tiles_m = (int32_t)tiles_m,
                       .tiles_n = (int32_t)tiles_n,
                       .band = BAND,
                       .whole = (int32_t)whole,
                       .parts = (int32_t)parts,
                       .units = (int32_t)units,
                       .groups = (int32_t)(units < groups ? units : groups)};
}
