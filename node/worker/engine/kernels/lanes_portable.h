/* Eight lanes of numbers in plain C: what lanes_x86.h does, said operation by operation. A compiler
 * makes vectors of these loops where the processor has some.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef AYNI_LANES_PORTABLE_H
#define AYNI_LANES_PORTABLE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#define EACH(i, n) for (int i = 0; i < (n); i++)

INLINE uint32_t bits_of(float a) {
    uint32_t bits;
    memcpy(&bits, &a, 4);
    return bits;
}
INLINE float float_of(uint32_t bits) {
    float a;
    memcpy(&a, &bits, 4);
    return a;
}

/* a * b + c, rounded once. Without an instruction for it: the product of two float32 is exact in
 * float64; their sum is rounded to odd there (Boldo and Melquiond, "Emulation of FMA and correctly
 * rounded sums", IEEE Transactions on Computers 57, 2008), after which rounding to float32 is as if
 * it were the only one. The C library's fmaf is a call, and not on every system exact. */
INLINE float fused(float a, float b, float c) {
#if defined(__FMA__) || defined(__aarch64__)
    return __builtin_fmaf(a, b, c);
#else
    double product = (double)a * (double)b, addend = (double)c;
    double sum = product + addend, shadow = sum - product;
    double error = (product - (sum - shadow)) + (addend - shadow);
    int64_t bits;
    memcpy(&bits, &sum, 8);
    /* Where the sum is not exact and even: one step towards where the exact one lies. */
    int64_t inexact = (error > 0.0) | (error < 0.0);
    int64_t towards_zero = (error < 0.0) == (sum > 0.0);
    bits += (inexact & ~bits & 1) * (1 - 2 * towards_zero);
    memcpy(&sum, &bits, 8);
    return (float)sum;
#endif
}

/* ---- Eight float32 ---- */

typedef struct {
    float lane[8];
} vec;

INLINE vec vec_load(const float *p) { vec r; memcpy(&r, p, sizeof r); return r; }
INLINE void vec_store(float *p, vec a) { memcpy(p, &a, sizeof a); }
INLINE vec vec_all(float a) { vec r; EACH(i, 8) r.lane[i] = a; return r; }
INLINE vec vec_add(vec a, vec b) { EACH(i, 8) a.lane[i] = a.lane[i] + b.lane[i]; return a; }
INLINE vec vec_sub(vec a, vec b) { EACH(i, 8) a.lane[i] = a.lane[i] - b.lane[i]; return a; }
INLINE vec vec_mul(vec a, vec b) { EACH(i, 8) a.lane[i] = a.lane[i] * b.lane[i]; return a; }
INLINE vec vec_div(vec a, vec b) { EACH(i, 8) a.lane[i] = a.lane[i] / b.lane[i]; return a; }
INLINE vec vec_fused(vec a, vec b, vec c) {
    EACH(i, 8) c.lane[i] = fused(a.lane[i], b.lane[i], c.lane[i]);
    return c;
}
INLINE float greater(float a, float b) { return a > b ? a : b; }
INLINE vec vec_greater(vec a, vec b) {
    EACH(i, 8) a.lane[i] = greater(a.lane[i], b.lane[i]);
    return a;
}
INLINE vec vec_smaller(vec a, vec b) {
    EACH(i, 8) a.lane[i] = a.lane[i] < b.lane[i] ? a.lane[i] : b.lane[i];
    return a;
}

/* The exponent is moved by a product, which serves the smallest numbers (subnormal) as well;
 * infinities and what is not a number get their exponent by hand. */
INLINE float from_half(uint16_t half) {
    uint32_t bits = (uint32_t)(half & 0x7fff) << 13;
    bits = bits_of(float_of(bits) * 0x1p112f) | (bits >= 0x7c00u << 13 ? 0x7f800000u : 0u);
    return float_of(bits | (uint32_t)(half & 0x8000) << 16);
}

/* To the nearest, halfway to the even one. */
INLINE uint16_t to_half(float a) {
    uint32_t bits = bits_of(a), sign = bits >> 16 & 0x8000u, size = bits & 0x7fffffffu;
    /* Normal numbers: the exponent moves, and half a step (less a bit for even ones) is added. */
    uint32_t normal = (size - (112u << 23) + 0xfffu + (size >> 13 & 1u)) >> 13;
    /* Subnormal ones: a sum with 0.5 leaves the wanted bits, rounded, at its low end. */
    uint32_t small = bits_of(float_of(size) + 0.5f) - bits_of(0.5f);
    uint32_t large = size > 0x7f800000u ? 0x7e00u : 0x7c00u;
    uint32_t result = size < 113u << 23 ? small : normal;
    return (uint16_t)(sign | (size >= 143u << 23 ? large : result));
}

INLINE vec vec_from_halves(const uint16_t *p) {
    vec r;
    EACH(i, 8) r.lane[i] = from_half(p[i]);
    return r;
}
INLINE void vec_to_halves(uint16_t *p, vec a) { EACH(i, 8) p[i] = to_half(a.lane[i]); }

INLINE vec vec_times_power(vec a, vec rounded) {
    EACH(i, 8) a.lane[i] *= float_of((bits_of(rounded.lane[i]) << 23) + 0x3f800000u);
    return a;
}

INLINE float vec_sum(vec a) {
    const float *x = a.lane;
    return ((x[0] + x[4]) + (x[2] + x[6])) + ((x[1] + x[5]) + (x[3] + x[7]));
}

INLINE float vec_greatest(vec a) {
    const float *x = a.lane;
    float even = greater(greater(x[0], x[4]), greater(x[2], x[6]));
    return greater(even, greater(greater(x[1], x[5]), greater(x[3], x[7])));
}

/* ---- Wide numbers: here eight lanes as well ---- */

#define EIGHTS 1
typedef vec wide;

INLINE wide wide_all(float a) { return vec_all(a); }
INLINE wide wide_load(const float *p) { return vec_load(p); }
INLINE void wide_store(float *p, wide a) { vec_store(p, a); }
INLINE wide wide_mul(wide a, wide b) { return vec_mul(a, b); }
INLINE wide wide_fused(wide a, wide b, wide c) { return vec_fused(a, b, c); }
INLINE vec wide_eight(wide a, int which) { (void)which; return a; }
INLINE wide wide_from_halves(const uint16_t *p) { return vec_from_halves(p); }
INLINE wide wide_from_eights(const uint8_t *p, size_t apart) {
    (void)apart;
    return vec_from_halves((const uint16_t *)p);
}

/* ---- Sums of products of bytes ---- */

typedef struct {
    uint8_t byte[32];
} bytes;
typedef struct {
    int8_t byte[32];
} bytes8;
typedef struct {
    int16_t part[32]; /* Eight products each: 8 * 15 * 127 = 15240 fits. */
} sums4;
typedef struct {
    int32_t part[32];
} sums8;

INLINE bytes bytes_load(const uint8_t *p, size_t apart) {
    bytes r;
    (void)apart;
    memcpy(&r, p, 32);
    return r;
}
INLINE bytes bytes_low(bytes b) { EACH(i, 32) b.byte[i] &= 15; return b; }
INLINE bytes bytes_high(bytes b) { EACH(i, 32) b.byte[i] >>= 4; return b; }
INLINE bytes8 bytes8_load(const uint8_t *p, size_t apart) {
    bytes8 r;
    (void)apart;
    memcpy(&r, p, 32);
    return r;
}

INLINE sums4 sums4_zero(void) { return (sums4){{0}}; }
INLINE sums4 sums4_add(sums4 s, bytes b, const int8_t *p) {
    EACH(i, 32) s.part[i] = (int16_t)(s.part[i] + b.byte[i] * p[i & 3]);
    return s;
}
INLINE wide sums4_floats(sums4 s) {
    const int16_t *x = s.part;
    vec r;
    EACH(i, 8) r.lane[i] = (float)(x[4 * i] + x[4 * i + 1] + x[4 * i + 2] + x[4 * i + 3]);
    return r;
}

INLINE sums8 sums8_begin(int32_t sum) { (void)sum; return (sums8){{0}}; }
INLINE sums8 sums8_add(sums8 s, bytes8 b, const int8_t *p) {
    EACH(i, 32) s.part[i] += b.byte[i] * p[i & 3];
    return s;
}
INLINE wide sums8_floats(sums8 s) {
    const int32_t *x = s.part;
    vec r;
    EACH(i, 8) r.lane[i] = (float)(x[4 * i] + x[4 * i + 1] + x[4 * i + 2] + x[4 * i + 3]);
    return r;
}

/* ---- Quantising ---- */

INLINE uint32_t group_greatest(const float *x) {
    uint32_t greatest = 0;
    EACH(i, 32) {
        uint32_t size = bits_of(x[i]) & 0x7fffffffu;
        greatest = size > greatest ? size : greatest;
    }
    return greatest;
}

INLINE int32_t group_values(const float *x, float inverse, int8_t *values) {
    int32_t sum = 0;
    EACH(i, 32) {
        /* 1.5 * 2^23 has no room for a fraction: the sum is rounded to a whole number. */
        int32_t value = (int32_t)(bits_of(x[i] * inverse + 0x1.8p23f) - bits_of(0x1.8p23f));
        values[i] = (int8_t)value;
        sum += value;
    }
    return sum;
}

#endif
