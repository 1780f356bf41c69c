// SPDX-License-Identifier: Apache-2.0
// Functions over whole arrays, from the vectors of one instruction set. See vector_test.cpp.
namespace probe {
namespace ZSE_ISA {

namespace simd = zse::kernels::ZSE_ISA;

inline void exp(const float* from, std::size_t count, float* to) {
    for (std::size_t i = 0; i < count; i += simd::lanes) {
        simd::store_up_to(to + i, simd::exp(simd::load_up_to(from + i, count - i)), count - i);
    }
}

/// `steps` steps of four codes of 16 rows, as packed weights have them, and four activations.
template <class Sum>
void sum(const std::byte* codes, const std::int8_t* activations, std::size_t steps, std::int32_t first,
         std::int32_t* totals) {
    std::int32_t all = 0;
    for (std::size_t i = 0; i < 4 * steps; ++i) all += activations[i];
    for (std::size_t row = 0; row < 16; row += simd::lanes) {
        Sum s;
        s.begin(first, all);
        for (std::size_t step = 0; step < steps; ++step) {
            s.step(Sum::weights(simd::load_codes(codes + (step * 16 + row) * 4)),
                   simd::four_bytes(activations + step * 4));
        }
        const simd::Int total = s.total();
        std::memcpy(totals + row, &total, sizeof total);
    }
}

inline void look_up(const std::byte* nibbles, const std::int8_t* table, std::int8_t* low, std::int8_t* high) {
    for (std::size_t at = 0; at < 64; at += 4 * simd::lanes) {
        const simd::Codes both = simd::load_codes(nibbles + at);
        const simd::Codes below = simd::look_up(simd::low_nibbles(both), table);
        const simd::Codes above = simd::look_up(simd::high_nibbles(both), table);
        std::memcpy(low + at, &below, sizeof below);
        std::memcpy(high + at, &above, sizeof above);
    }
}

inline void round(const float* from, std::size_t count, std::int8_t* to) {
    for (std::size_t i = 0; i < count; i += simd::lanes) simd::store_s8(to + i, simd::to_int(simd::load(from + i)));
}

inline void widen(const std::byte* halves, std::size_t count, float* from_f16, float* from_bf16) {
    for (std::size_t i = 0; i < count; i += simd::lanes) {
        simd::store(from_f16 + i, simd::load_f16(halves + 2 * i));
        simd::store(from_bf16 + i, simd::load_bf16(halves + 2 * i));
    }
}

inline void widen_e4m3(const std::byte* bytes, std::size_t count, float* to) {
    for (std::size_t i = 0; i < count; i += simd::lanes) simd::store(to + i, simd::load_e4m3(bytes + i));
}

inline void narrow(const float* from, std::size_t count, std::byte* halves) {
    for (std::size_t i = 0; i < count; i += simd::lanes) simd::store_f16(halves + 2 * i, simd::load(from + i));
}

/// Of sixteen values.
inline Reductions reduce(const float* from) {
    simd::Vec sum = simd::zero();
    simd::Vec most = simd::load(from);
    for (std::size_t i = 0; i < 16; i += simd::lanes) {
        const simd::Vec v = simd::load(from + i);
        sum = simd::add(sum, v);
        most = simd::max(most, v);
    }
    return {simd::sum(sum), simd::greatest(most), simd::sum(simd::to_int(sum))};
}

inline float magnitude(const float* from) {
    simd::Vec most = simd::zero();
    for (std::size_t i = 0; i < 16; i += simd::lanes) most = simd::max_magnitude(most, simd::load(from + i));
    return simd::greatest_magnitude(most);
}

inline constexpr Functions functions{&exp, &sum<simd::Sum4>, &sum<simd::Sum8>, &look_up, &round, &widen,
                                     &widen_e4m3, &narrow, &reduce, &magnitude};

}  // namespace ZSE_ISA
}  // namespace probe
