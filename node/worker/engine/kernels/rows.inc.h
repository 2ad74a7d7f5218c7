/* What happens to one row of numbers: exp and what is built on it, norms, quantising, rotation.
 * Included by each path after its lanes.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

/* ---- Elementwise ---- */

#define EXP_ROUNDER 0x1.8p23f

/* e^x, relative error about 1e-7, for x cut to -87 and 88; what is not a number stays so. The
 * polynomial is that of Cephes (expf), x = n ln 2 + r with |r| <= ln 2 / 2. */
INLINE vec vec_exp(vec x) {
    x = vec_greater(vec_all(-87.0f), vec_smaller(vec_all(88.0f), x));
    vec rounded = vec_fused(x, vec_all(1.44269504f), vec_all(EXP_ROUNDER));
    vec n = vec_sub(rounded, vec_all(EXP_ROUNDER));
    vec r = vec_fused(n, vec_all(-0.693359375f), x);
    r = vec_fused(n, vec_all(2.12194440e-4f), r);
    vec p = vec_all(1.9875691500e-4f);
    p = vec_fused(p, r, vec_all(1.3981999507e-3f));
    p = vec_fused(p, r, vec_all(8.3334519073e-3f));
    p = vec_fused(p, r, vec_all(4.1665795894e-2f));
    p = vec_fused(p, r, vec_all(1.6666665459e-1f));
    p = vec_fused(p, r, vec_all(5.0000001201e-1f));
    p = vec_fused(p, vec_mul(r, r), vec_add(r, vec_all(1.0f)));
    return vec_times_power(p, rounded);
}

/* x / (1 + e^z): with z = -x this is x * sigmoid(x). */
INLINE vec vec_gated(vec x, vec z) {
    return vec_div(x, vec_add(vec_all(1.0f), vec_exp(z)));
}

INLINE vec vec_silu(vec x) { return vec_gated(x, vec_sub(vec_all(0.0f), x)); }

/* GELU by tanh: x / 2 (1 + tanh u) = x / (1 + e^(-2u)), u = sqrt(2 / pi) (x + 0.044715 x^3). */
INLINE vec vec_gelu(vec x) {
    vec cubic = vec_fused(vec_mul(vec_mul(x, x), vec_all(0.044715f)), x, x);
    return vec_gated(x, vec_mul(cubic, vec_all(-1.5957691216f)));
}

/* cap * tanh(x / cap), tanh y = 1 - 2 / (1 + e^(2y)). */
INLINE vec vec_softcap(vec x, float cap) {
    vec twice = vec_mul(vec_div(x, vec_all(cap)), vec_all(2.0f));
    vec fraction = vec_div(vec_all(2.0f), vec_add(vec_all(1.0f), vec_exp(twice)));
    return vec_mul(vec_all(cap), vec_sub(vec_all(1.0f), fraction));
}

/* ---- Quantising ---- */

#define GREATEST_MIN 0x0d800000u /* 2^-100: a group of less than this counts as zeros. */
#define GREATEST_MAX 0x7f7fffffu /* The greatest number; beyond are infinity and no numbers. */

/* 32 numbers to whole numbers of -127 to 127 and a scale. A group with anything in it that is not a
 * finite number gets a scale that is no number, so that the fault shows in all that comes of it. */
INLINE void quantise_group(const float *x, quantised *to, size_t row, size_t group) {
    size_t place = row * (to->columns / AYNI_GROUP) + group;
    uint32_t bits = group_greatest(x);
    float greatest, inverse = 0.0f;
    memcpy(&greatest, &bits, sizeof greatest);
    float scale = bits > GREATEST_MAX ? NAN : greatest / 127.0f;
    int32_t sum = 0;
    int8_t *values = to->values + row * to->columns + group * AYNI_GROUP;
    if (bits >= GREATEST_MIN && bits <= GREATEST_MAX) {
        inverse = 127.0f / greatest;
        sum = group_values(x, inverse, values);
    } else {
        memset(values, 0, AYNI_GROUP);
    }
    to->scales[place] = scale;
    to->scaled_sums[place] = scale * (float)sum;
    to->sums[place] = sum;
}

/* ---- Norms ---- */

/* 1 / sqrt(mean of squares + epsilon). */
INLINE float norm_factor(const float *x, size_t count, float epsilon) {
    vec squares = vec_all(0.0f);
    for (size_t i = 0; i < count; i += 8) {
        vec v = vec_load(x + i);
        squares = vec_fused(v, v, squares);
    }
    return 1.0f / __builtin_sqrtf(vec_sum(squares) / (float)count + epsilon);
}

INLINE vec normed_at(const float *x, const float *weights, float factor, size_t i) {
    return vec_mul(vec_mul(vec_load(x + i), vec_all(factor)), vec_load(weights + i));
}

/* `to` may be `x`. */
static void norm(float *to, const float *x, const float *weights, size_t count, float epsilon) {
    float factor = norm_factor(x, count, epsilon);
    for (size_t i = 0; i < count; i += 8)
        vec_store(to + i, normed_at(x, weights, factor, i));
}

static void norm_added(float *to, const float *x, const float *weights, size_t count,
                       float epsilon) {
    float factor = norm_factor(x, count, epsilon);
    for (size_t i = 0; i < count; i += 8)
        vec_store(to + i, vec_add(vec_load(to + i), normed_at(x, weights, factor, i)));
}

static void norm_quantised(quantised *to, size_t row, const float *x, const float *weights,
                           float epsilon) {
    float factor = norm_factor(x, to->columns, epsilon), group[AYNI_GROUP];
    for (size_t g = 0; g < to->columns / AYNI_GROUP; g++) {
        for (size_t i = 0; i < AYNI_GROUP; i += 8)
            vec_store(group + i, normed_at(x, weights, factor, g * AYNI_GROUP + i));
        quantise_group(group, to, row, g);
    }
}

/* ---- Heads ---- */

/* Turns the pairs (i, i + half) by the angles of a position (rotary embedding by halves). */
INLINE void rotate(float *head, const float *rotations, size_t half) {
    for (size_t i = 0; i < half; i++) {
        float a = head[i], b = head[half + i], c = rotations[2 * i], s = rotations[2 * i + 1];
        head[i] = a * c - b * s;
        head[half + i] = a * s + b * c;
    }
}

/* ---- The embedding ---- */

/* One row of a packed matrix, times `factor`. */
static void unpack_row(const ayni_matrix *matrix, size_t row, float factor, float *to) {
    size_t groups = (size_t)matrix->columns / AYNI_GROUP, lane = row % AYNI_ROWS;
    size_t bytes_each = matrix->format == AYNI_Q4 ? AYNI_Q4_BYTES : AYNI_Q8_BYTES;
    const uint8_t *group = matrix->data + row / AYNI_ROWS * groups * bytes_each;
    for (size_t g = 0; g < groups; g++, group += bytes_each, to += AYNI_GROUP) {
        float scales[8], minima[8] = {0};
        vec_store(scales, vec_from_halves((const uint16_t *)group));
        if (matrix->format == AYNI_Q4)
            vec_store(minima, vec_from_halves((const uint16_t *)(group + 16)));
        for (size_t i = 0; i < AYNI_GROUP; i++) {
            int value;
            if (matrix->format == AYNI_Q4) {
                uint8_t both = group[32 + i % 16 / 4 * 32 + lane * 4 + i % 4];
                value = i < 16 ? both & 15 : both >> 4;
            } else {
                value = (int8_t)group[16 + i / 4 * 32 + lane * 4 + i % 4];
            }
            to[i] = fused((float)value, scales[lane], minima[lane]) * factor;
        }
    }
}
