// SPDX-License-Identifier: Apache-2.0
// Random values that are the same in every run.
#pragma once

#include <cstddef>
#include <random>
#include <vector>

namespace support {

inline std::vector<float> gaussian(std::size_t count, unsigned seed, float deviation = 1.0f) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal(0.0f, deviation);
    std::vector<float> values(count);
    for (float& value : values) value = normal(random);
    return values;
}

inline std::vector<std::byte> random_bytes(std::size_t count, unsigned seed) {
    std::mt19937 random(seed);
    std::vector<std::byte> bytes(count);
    for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
    return bytes;
}

}  // namespace support
