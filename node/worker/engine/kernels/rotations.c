/* Cosines and sines of the rotary embedding, by fixed operations in float64.
 *
 * A library's sin and cos may differ in the last bit between two systems. These take only sums,
 * products and quotients, each rounded as IEEE 754 says, so every machine gets the same table.
 * Errors are some 1e-15 of the angle, so a float32 is the nearest one but for rare ties, up to
 * angles of 1e6.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "ayni_kernels.h"

#include <math.h>
#include <string.h>

#define LN2_HIGH 0x1.62e42fee00000p-1 /* Products with whole numbers below 2^20 are exact. */
#define LN2_LOW 0x1.a39ef35793c76p-33
#define LN2_INVERSE 0x1.71547652b82fep+0
#define HALF_PI_HIGH 0x1.921fb54400000p+0 /* 33 bits: the same. */
#define HALF_PI_LOW 0x1.0b4611a626331p-34
#define TWO_OVER_PI 0x1.45f306dc9c883p-1
#define ANGLE_MAX 1e9 /* Beyond it there is no rotation worth the name. */
#define ROUNDER 0x1.8p+52 /* Adding and subtracting it rounds to the nearest whole number. */

static double rounded(double x) {
    volatile double shifted = x + ROUNDER; /* No compiler may think the two cancel. */
    return shifted - ROUNDER;
}

/* 2^exponent, -1022 to 1023. */
static double power_of_two(int exponent) {
    uint64_t bits = (uint64_t)(exponent + 1023) << 52;
    double result;
    memcpy(&result, &bits, sizeof result);
    return result;
}

/* Of a positive normal number: ln(m * 2^e) = e ln 2 + 2 artanh((m - 1) / (m + 1)). */
static double logarithm(double x) {
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    int exponent = (int)(bits >> 52) - 1023;
    bits = (bits & 0x000fffffffffffffu) | 0x3ff0000000000000u;
    double m;
    memcpy(&m, &bits, sizeof m);
    if (m > 1.4142135623730951) {
        m *= 0.5;
        exponent++;
    }
    double z = (m - 1.0) / (m + 1.0), square = z * z, sum = 0.0;
    for (int i = 12; i >= 0; i--)
        sum = sum * square + 1.0 / (2 * i + 1);
    return exponent * LN2_HIGH + (2.0 * z * sum + exponent * LN2_LOW);
}

/* For -700 to 700. */
static double exponential(double x) {
    double n = rounded(x * LN2_INVERSE), r = (x - n * LN2_HIGH) - n * LN2_LOW, sum = 1.0;
    for (int i = 14; i >= 1; i--)
        sum = sum * (r / i) + 1.0;
    return sum * power_of_two((int)n);
}

static void cosine_sine(double angle, double *cosine, double *sine) {
    if (!(angle > -ANGLE_MAX && angle < ANGLE_MAX)) {
        *cosine = *sine = NAN;
        return;
    }
    double n = rounded(angle * TWO_OVER_PI);
    double r = (angle - n * HALF_PI_HIGH) - n * HALF_PI_LOW, square = r * r, c = 1.0, s = 1.0;
    for (int i = 9; i >= 1; i--) {
        c = 1.0 - c * (square / ((2 * i - 1) * (2 * i)));
        s = 1.0 - s * (square / ((2 * i) * (2 * i + 1)));
    }
    s *= r;
    switch ((int64_t)n & 3) {
    case 0: *cosine = c, *sine = s; break;
    case 1: *cosine = -s, *sine = c; break;
    case 2: *cosine = -c, *sine = -s; break;
    default: *cosine = s, *sine = -c; break;
    }
}

void ayni_rotations(float *table, int32_t positions, int32_t half, double base, double scale,
                    const float *divisor) {
    double base_logarithm = logarithm(base);
    for (int32_t i = 0; i < half; i++) {
        double frequency = scale * exponential(-(double)i / half * base_logarithm);
        if (divisor)
            frequency = frequency / (double)divisor[i];
        for (int32_t position = 0; position < positions; position++) {
            double cosine, sine;
            cosine_sine(position * frequency, &cosine, &sine);
            float *pair = table + ((size_t)position * (size_t)half + (size_t)i) * 2;
            pair[0] = (float)cosine;
            pair[1] = (float)sine;
        }
    }
}
