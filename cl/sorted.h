/* How many of `count` ascending keys are below v. */
static inline int sorted_below(__global const int *keys, int count, int v) {
  int low = 0, high = count;
  while (low < high) {
    const int middle = (low + high) / 2;
    if (keys[middle] < v)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}
