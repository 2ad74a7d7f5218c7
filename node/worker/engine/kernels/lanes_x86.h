/* Eight lanes of numbers by AVX2, FMA and F16C; sums of products of bytes by VNNI where the file
 * that includes this defines DOT, and sixteen lanes where it defines WIDE. The lanes of portable C
 * (lanes_portable.h) give the same bits.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef AYNI_LANES_X86_H
#define AYNI_LANES_X86_H

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

/* ---- Eight float32 ---- */

typedef __m256 vec;

INLINE vec vec_load(const float *p) { return _mm256_loadu_ps(p); }
INLINE void vec_store(float *p, vec a) { _mm256_storeu_ps(p, a); }
INLINE vec vec_all(float a) { return _mm256_set1_ps(a); }
INLINE vec vec_add(vec a, vec b) { return _mm256_add_ps(a, b); }
INLINE vec vec_sub(vec a, vec b) { return _mm256_sub_ps(a, b); }
INLINE vec vec_mul(vec a, vec b) { return _mm256_mul_ps(a, b); }
INLINE vec vec_div(vec a, vec b) { return _mm256_div_ps(a, b); }
INLINE vec vec_fused(vec a, vec b, vec c) { return _mm256_fmadd_ps(a, b, c); }
/* a where it is greater (smaller), otherwise b: so b where one is not a number. */
INLINE vec vec_greater(vec a, vec b) { return _mm256_max_ps(a, b); }
INLINE vec vec_smaller(vec a, vec b) { return _mm256_min_ps(a, b); }

INLINE vec vec_from_halves(const uint16_t *p) {
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
}
INLINE void vec_to_halves(uint16_t *p, vec a) {
    _mm_storeu_si128((__m128i *)p, _mm256_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT));
}

/* a * 2^n for `rounded` = ROUNDER + n, whose low bits are n. */
INLINE vec vec_times_power(vec a, vec rounded) {
    __m256i n = _mm256_slli_epi32(_mm256_castps_si256(rounded), 23);
    __m256i power = _mm256_add_epi32(n, _mm256_set1_epi32(0x3f800000));
    return _mm256_mul_ps(a, _mm256_castsi256_ps(power));
}

/* ((0 + 4) + (2 + 6)) + ((1 + 5) + (3 + 7)): the order is a rule of the mode. */
INLINE float vec_sum(vec a) {
    __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_add_ps(b, _mm_movehl_ps(b, b));
    b = _mm_add_ss(b, _mm_movehdup_ps(b));
    return _mm_cvtss_f32(b);
}

INLINE float vec_greatest(vec a) {
    __m128 b = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_max_ps(b, _mm_movehl_ps(b, b));
    b = _mm_max_ss(b, _mm_movehdup_ps(b));
    return _mm_cvtss_f32(b);
}

INLINE float fused(float a, float b, float c) { return __builtin_fmaf(a, b, c); }

/* ---- Wide numbers: as many lanes as a register has, where lanes have nothing to do with one
 * another. A wide number holds EIGHTS eights. ---- */

#if defined(WIDE)

#define EIGHTS 2
typedef __m512 wide;
typedef __m512i bytes; /* Four columns of sixteen rows. */

INLINE wide wide_all(float a) { return _mm512_set1_ps(a); }
INLINE wide wide_load(const float *p) { return _mm512_loadu_ps(p); }
INLINE void wide_store(float *p, wide a) { _mm512_storeu_ps(p, a); }
INLINE wide wide_mul(wide a, wide b) { return _mm512_mul_ps(a, b); }
INLINE wide wide_fused(wide a, wide b, wide c) { return _mm512_fmadd_ps(a, b, c); }
INLINE vec wide_eight(wide a, int which) {
    __m512d pairs = _mm512_castps_pd(a);
    __m256d eight = which ? _mm512_extractf64x4_pd(pairs, 1) : _mm512_castpd512_pd256(pairs);
    return _mm256_castpd_ps(eight);
}
INLINE wide wide_from_halves(const uint16_t *p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}
INLINE bytes bytes_of(__m256i low, __m256i high) {
    return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
}
/* Eight halves each at two places, `apart` bytes from one another. */
INLINE wide wide_from_eights(const uint8_t *p, size_t apart) {
    __m256i both = _mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)p));
    both = _mm256_inserti128_si256(both, _mm_loadu_si128((const __m128i *)(p + apart)), 1);
    return _mm512_cvtph_ps(both);
}
INLINE bytes bytes_load(const uint8_t *p, size_t apart) {
    return bytes_of(_mm256_loadu_si256((const __m256i *)p),
                    _mm256_loadu_si256((const __m256i *)(p + apart)));
}
INLINE bytes bytes_low(bytes b) { return _mm512_and_si512(b, _mm512_set1_epi8(15)); }
INLINE bytes bytes_high(bytes b) { return bytes_low(_mm512_srli_epi16(b, 4)); }
INLINE bytes bytes_all(int32_t four) { return _mm512_set1_epi32(four); }
INLINE wide wide_from_sums(bytes s) { return _mm512_cvtepi32_ps(s); }
INLINE bytes bytes_flipped(bytes b) { return _mm512_xor_si512(b, _mm512_set1_epi8((char)0x80)); }

#else

#define EIGHTS 1
typedef vec wide;
typedef __m256i bytes; /* Four columns of eight rows. */

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
INLINE bytes bytes_load(const uint8_t *p, size_t apart) {
    (void)apart;
    return _mm256_loadu_si256((const __m256i *)p);
}
INLINE bytes bytes_low(bytes b) { return _mm256_and_si256(b, _mm256_set1_epi8(15)); }
INLINE bytes bytes_high(bytes b) { return bytes_low(_mm256_srli_epi16(b, 4)); }
INLINE bytes bytes_all(int32_t four) { return _mm256_set1_epi32(four); }
INLINE wide wide_from_sums(bytes s) { return _mm256_cvtepi32_ps(s); }
INLINE bytes bytes_flipped(bytes b) { return _mm256_xor_si256(b, _mm256_set1_epi8((char)0x80)); }

#endif

/* ---- Sums of products of bytes ---- */

/* Four columns of a token, for all rows. */
INLINE bytes four_columns(const int8_t *p) {
    int32_t four;
    memcpy(&four, p, 4);
    return bytes_all(four);
}

/* Sums of a group, for all rows: of products of 0 to 15 (sums4) or -127 to 127 (sums8) with -127
 * to 127. They are exact. */
typedef bytes sums4, sums8;
typedef bytes bytes8; /* Signed bytes, as sums8_add wants them. */

INLINE sums4 sums4_zero(void) { return bytes_all(0); }

#if defined(DOT)

INLINE sums4 sums4_add(sums4 s, bytes b, const int8_t *p) { return DOT(s, b, four_columns(p)); }
INLINE wide sums4_floats(sums4 s) { return wide_from_sums(s); }

/* The instruction wants one side unsigned: 128 is added to each weight, and 128 times the sum of
 * the token's values taken off before. */
INLINE sums8 sums8_begin(int32_t sum) { return bytes_all(-128 * sum); }
INLINE bytes8 bytes8_load(const uint8_t *p, size_t apart) {
    return bytes_flipped(bytes_load(p, apart));
}
INLINE sums8 sums8_add(sums8 s, bytes8 b, const int8_t *p) { return DOT(s, b, four_columns(p)); }

#else

/* Pairs of products fit in 16 bits, and so do eight of these: 16 * 15 * 127 = 30480. */
INLINE sums4 sums4_add(sums4 s, bytes b, const int8_t *p) {
    return _mm256_add_epi16(s, _mm256_maddubs_epi16(b, four_columns(p)));
}
INLINE wide sums4_floats(sums4 s) {
    return wide_from_sums(_mm256_madd_epi16(s, _mm256_set1_epi16(1)));
}

/* |w| * (sign of w) x = w * x; a pair is at most 2 * 127 * 127 = 32258, which fits in 16 bits. */
INLINE sums8 sums8_begin(int32_t sum) { (void)sum; return bytes_all(0); }
INLINE bytes8 bytes8_load(const uint8_t *p, size_t apart) { return bytes_load(p, apart); }
INLINE sums8 sums8_add(sums8 s, bytes8 b, const int8_t *p) {
    __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(b), _mm256_sign_epi8(four_columns(p), b));
    return _mm256_add_epi32(s, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

#endif

INLINE wide sums8_floats(sums8 s) { return wide_from_sums(s); }

/* ---- Quantising ---- */

/* The greatest magnitude of 32 numbers, as the bits of a float32. Magnitudes are in the order of
 * their bits, with infinity and then all that is not a number above the rest. */
INLINE uint32_t group_greatest(const float *x) {
    const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
    __m256i greatest = _mm256_setzero_si256();
    for (int i = 0; i < 32; i += 8) {
        __m256i bits = _mm256_castps_si256(vec_load(x + i));
        greatest = _mm256_max_epi32(greatest, _mm256_and_si256(bits, magnitude));
    }
    __m128i high = _mm256_extracti128_si256(greatest, 1);
    __m128i a = _mm_max_epi32(_mm256_castsi256_si128(greatest), high);
    a = _mm_max_epi32(a, _mm_shuffle_epi32(a, 0x4e));
    a = _mm_max_epi32(a, _mm_shuffle_epi32(a, 0xb1));
    return (uint32_t)_mm_cvtsi128_si32(a);
}

/* The nearest whole numbers of x * inverse, which are -127 to 127, and their sum. */
INLINE int32_t group_values(const float *x, float inverse, int8_t *values) {
    vec factor = vec_all(inverse);
    __m256i a = _mm256_cvtps_epi32(vec_mul(vec_load(x), factor));
    __m256i b = _mm256_cvtps_epi32(vec_mul(vec_load(x + 8), factor));
    __m256i c = _mm256_cvtps_epi32(vec_mul(vec_load(x + 16), factor));
    __m256i d = _mm256_cvtps_epi32(vec_mul(vec_load(x + 24), factor));
    __m256i packed = _mm256_packs_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
    packed = _mm256_permutevar8x32_epi32(packed, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    _mm256_storeu_si256((__m256i *)values, packed);
    __m256i sums = _mm256_add_epi32(_mm256_add_epi32(a, b), _mm256_add_epi32(c, d));
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1));
    return _mm_cvtsi128_si32(s);
}

#endif
