// The same lookup in C, over flat tables: the windows in turn, the entry, the permission, memory.
// Prints the median of nanoseconds a lookup.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define ENTRIES (1u << 18)
#define COUNT 200000
#define WINDOWS 101

struct table {
  uint64_t bus_offset;
  uint32_t page_shift;
  uint32_t nb_table;
  uint64_t *entries;
  uint64_t translations;
};

struct bridge {
  struct table tables[2];
  uint64_t memory_end;
};

static int order(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

// Kept out of line, as a device would call it.
__attribute__((noinline)) static int translate(struct bridge *phb, uint64_t bus, uint64_t length,
                                               uint64_t need, uint64_t *gpa, uint64_t *run) {
  for (int t = 1; t >= 0; t -= 1) {
    struct table *table = &phb->tables[t];
    uint64_t index = (bus - table->bus_offset) >> table->page_shift;
    if (bus < table->bus_offset || index >= table->nb_table) continue;
    table->translations += 1;
    uint64_t tce = table->entries[index];
    if ((tce & need) == 0) return 2;
    uint64_t size = (uint64_t)1 << table->page_shift;
    uint64_t offset = (bus - table->bus_offset) & (size - 1);
    uint64_t at = (tce & ~(size - 1)) | offset;
    uint64_t room = size - offset;
    if (length < room) room = length;
    if (at + room > phb->memory_end) return 3;
    *gpa = at;
    *run = room;
    return 0;
  }
  return 1;
}

int main(void) {
  struct bridge phb = {.tables = {{0, 12, ENTRIES, malloc(ENTRIES * sizeof(uint64_t)), 0}},
                       .memory_end = 1ull << 31};
  for (uint64_t i = 0; i < ENTRIES; i += 1) phb.tables[0].entries[i] = (i << 12) | 3;
  double windows[WINDOWS];
  uint64_t sum = 0;
  for (int w = 0; w < WINDOWS; w += 1) {
    struct timespec start, end;
    clock_gettime(CLOCK_MONOTONIC, &start);
    for (uint64_t i = 0; i < COUNT; i += 1) {
      uint64_t gpa = 0, run = 0;
      if (translate(&phb, 0x2000 + (i & 0xff0), 16, 1, &gpa, &run) == 0) sum += run;
    }
    clock_gettime(CLOCK_MONOTONIC, &end);
    windows[w] = ((end.tv_sec - start.tv_sec) * 1e9 + (end.tv_nsec - start.tv_nsec)) / COUNT;
  }
  qsort(windows, WINDOWS, sizeof *windows, order);
  if (sum == 0) return 1;
  printf("%f\n", windows[WINDOWS / 2]);
  return 0;
}
