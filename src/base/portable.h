/* What code that is compiled both for the host and for the device says instead of `static inline`, `#pragma unroll` and `#pragma unroll 1`.
 * Such code is written in the common subset of C17 and C++. */
#ifndef M40_BASE_PORTABLE_H
#define M40_BASE_PORTABLE_H

#ifdef M40_DEVICE_CODE
#define M40_HD static inline __attribute__((device, always_inline))
#define M40_TABLE static const __attribute__((constant))
#define M40_UNROLL _Pragma("unroll")
#define M40_ROLLED _Pragma("unroll 1")
#else
#define M40_HD static inline __attribute__((unused))
#define M40_TABLE static const __attribute__((unused))
#define M40_UNROLL
#define M40_ROLLED
#endif

#endif
