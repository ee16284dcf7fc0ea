/* The activations of feed-forward blocks, on host and device: how an element of gate and one of up become one. docs/numerics.md has them as "glu". */
#ifndef M40_BASE_ACT_H
#define M40_BASE_ACT_H

#include "base/fmath.h"

enum m40_act {
    M40_ACT_SILU,       /* silu(gate) * up */
    M40_ACT_GELU_TANH,  /* gelu(gate) * up, gelu by its approximation with tanh */
    M40_ACT_SWIGLU_OAI, /* g * sigmoid(alpha * g) * (u + 1), g = min(gate, limit), u = up clamped to -limit .. limit */
};

/* alpha, limit: of M40_ACT_SWIGLU_OAI. NaNs stay NaNs. */
M40_HD float m40_glu(enum m40_act act, float alpha, float limit, float g, float u)
{
    float z = g; /* g * sigmoid(z) */

    if (act == M40_ACT_GELU_TANH) {
        z = g * m40_fmaf(0.0713548163f, g * g, 1.59576912f); /* (1 + tanh(z / 2)) / 2 = sigmoid(z) */
    } else if (act == M40_ACT_SWIGLU_OAI) {
        g = g > limit ? limit : g;
        u = (u > limit ? limit : u < -limit ? -limit : u) + 1.0f;
        z = alpha * g;
    }
    return (g / (1.0f + m40_expf(-z))) * u;
}

#endif
