// SPDX-License-Identifier: Apache-2.0
// What a machine can do at most: bytes read from memory a second, and multiply-adds a second by mix.
#pragma once

#include <sched.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <barrier>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <new>
#include <string_view>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#include <sys/auxv.h>
#endif

namespace zse_bench {

/// Of several short passes. The best is what the machine can do, the median what its neighbours left of that.
struct Rate {
    double best = 0;
    double median = 0;
};

/// What an inner loop is made of.
enum class Mix : std::uint8_t { maddubs_ymm, maddubs_zmm, dpbusd_zmm, sdot, fma_ymm, fma_zmm, fmla };

struct Isa {
    std::string_view name;
    Mix integer;
    Mix floating;
};

inline constexpr std::array<Isa, 4> isas{{{"avx2", Mix::maddubs_ymm, Mix::fma_ymm},
                                          {"avx512", Mix::maddubs_zmm, Mix::fma_zmm},
                                          {"avx512_vnni", Mix::dpbusd_zmm, Mix::fma_zmm},
                                          {"neon", Mix::sdot, Mix::fmla}}};

constexpr std::string_view name(Mix mix) noexcept {
    switch (mix) {
        case Mix::maddubs_ymm: return "vpmaddubsw + vpaddw, 256 bit";
        case Mix::maddubs_zmm: return "vpmaddubsw + vpaddw, 512 bit";
        case Mix::dpbusd_zmm: return "vpdpbusd, 512 bit";
        case Mix::sdot: return "sdot, 128 bit";
        case Mix::fma_ymm: return "float32 vfmadd231ps, 256 bit";
        case Mix::fma_zmm: return "float32 vfmadd231ps, 512 bit";
        case Mix::fmla: return "float32 fmla, 128 bit";
    }
    return "";
}

/// Whether this machine has the instructions.
inline bool runs(const Isa& isa) noexcept {
#if defined(__x86_64__)
    const bool wide = __builtin_cpu_supports("avx512f") != 0 && __builtin_cpu_supports("avx512bw") != 0;
    switch (isa.integer) {
        case Mix::maddubs_ymm:
            return __builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("fma") != 0;
        case Mix::maddubs_zmm: return wide;
        case Mix::dpbusd_zmm: return wide && __builtin_cpu_supports("avx512vnni") != 0;
        default: return false;
    }
#elif defined(__aarch64__)
    constexpr unsigned long dot = 1ul << 20;  // HWCAP_ASIMDDP
    return isa.integer == Mix::sdot && (::getauxval(AT_HWCAP) & dot) != 0;
#else
    static_cast<void>(isa);
    return false;
#endif
}

/// The widest that runs here, or null.
inline const Isa* widest() noexcept {
    const Isa* found = nullptr;
    for (const Isa& isa : isas) {
        if (runs(isa)) found = &isa;
    }
    return found;
}

namespace detail {

/// Keeps the calling thread on the `index`-th of the processors that the process may use: left alone, two
/// threads may share one for longer than all passes take.
inline void pin(unsigned index) noexcept {
    cpu_set_t usable;
    if (::sched_getaffinity(0, sizeof usable, &usable) != 0) return;
    unsigned left = index % static_cast<unsigned>(CPU_COUNT(&usable));
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
        if (!CPU_ISSET(cpu, &usable) || left-- != 0) continue;
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET(cpu, &one);
        ::sched_setaffinity(0, sizeof one, &one);
        return;
    }
}

/// Calls pass(thread) `passes` times on all threads at once, after prepare(thread) and a pass that warms up.
/// `work` is what one pass of all threads does; it lasts from the first one's start to the last one's end.
template <class Prepare, class Pass>
Rate rate(unsigned threads, unsigned passes, double work, const Prepare& prepare, const Pass& pass) {
    using Clock = std::chrono::steady_clock;
    struct alignas(64) Times {
        Clock::time_point start, end;
    };
    std::vector<Times> times(threads);
    std::vector<double> rates;
    std::barrier together(static_cast<std::ptrdiff_t>(threads));
    const auto body = [&](unsigned thread) {
        pin(thread);
        prepare(thread);
        for (unsigned i = 0; i <= passes; ++i) {
            together.arrive_and_wait();
            times[thread].start = Clock::now();
            pass(thread);
            times[thread].end = Clock::now();
            together.arrive_and_wait();
            if (thread != 0 || i == 0) continue;
            Clock::time_point start = times[0].start;
            Clock::time_point end = times[0].end;
            for (const Times& t : times) {
                start = std::min(start, t.start);
                end = std::max(end, t.end);
            }
            rates.push_back(work / std::chrono::duration<double>(end - start).count());
        }
    };
    std::vector<std::jthread> team;
    for (unsigned thread = 0; thread < threads; ++thread) team.emplace_back(body, thread);
    team.clear();  // joins
    std::sort(rates.begin(), rates.end());
    return {rates.back(), rates[rates.size() / 2]};
}

/// Where results go that nobody wants, so that no compiler leaves out what makes them.
inline void keep(std::uint64_t value) noexcept {
    asm volatile("" : : "r"(value) : "memory");
}

inline constexpr std::size_t streams = 4;  ///< one does not keep a core's line buffers full
inline constexpr std::size_t line = 64;

// Each reads `streams` far parts of `part` bytes, a multiple of `line`, side by side. Every sum has its own
// name: an array of them would live in memory.

inline void read_plain(const std::byte* from, std::size_t part) noexcept {
    const auto* words = reinterpret_cast<const std::uint64_t*>(from);
    const std::size_t count = part / sizeof(std::uint64_t);
    std::uint64_t a = 0;
    std::uint64_t b = 0;
    std::uint64_t c = 0;
    std::uint64_t d = 0;
    for (std::size_t i = 0; i < count; ++i, ++words) {
        a ^= words[0];
        b ^= words[count];
        c ^= words[2 * count];
        d ^= words[3 * count];
    }
    keep(a ^ b ^ c ^ d);
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) inline void read_avx2(const std::byte* from, std::size_t part) noexcept {
    const auto* words = reinterpret_cast<const __m256i*>(from);
    const std::size_t count = part / sizeof(__m256i);
    __m256i a = _mm256_setzero_si256();
    __m256i b = a;
    __m256i c = a;
    __m256i d = a;
    for (std::size_t i = 0; i < count; i += 2, words += 2) {  // whole lines
        a = _mm256_xor_si256(a, _mm256_xor_si256(words[0], words[1]));
        b = _mm256_xor_si256(b, _mm256_xor_si256(words[count], words[count + 1]));
        c = _mm256_xor_si256(c, _mm256_xor_si256(words[2 * count], words[2 * count + 1]));
        d = _mm256_xor_si256(d, _mm256_xor_si256(words[3 * count], words[3 * count + 1]));
    }
    alignas(32) std::uint64_t sums[4];
    _mm256_store_si256(reinterpret_cast<__m256i*>(sums),
                       _mm256_xor_si256(_mm256_xor_si256(a, b), _mm256_xor_si256(c, d)));
    keep(sums[0]);
}

__attribute__((target("avx512f"))) inline void read_avx512(const std::byte* from, std::size_t part) noexcept {
    const auto* words = reinterpret_cast<const __m512i*>(from);
    const std::size_t count = part / sizeof(__m512i);
    __m512i a = _mm512_setzero_si512();
    __m512i b = a;
    __m512i c = a;
    __m512i d = a;
    for (std::size_t i = 0; i < count; ++i, ++words) {
        a = _mm512_xor_si512(a, words[0]);
        b = _mm512_xor_si512(b, words[count]);
        c = _mm512_xor_si512(c, words[2 * count]);
        d = _mm512_xor_si512(d, words[3 * count]);
    }
    alignas(64) std::uint64_t sums[8];
    _mm512_store_si512(sums, _mm512_xor_si512(_mm512_xor_si512(a, b), _mm512_xor_si512(c, d)));
    keep(sums[0]);
}
#elif defined(__aarch64__)
inline void read_neon(const std::byte* from, std::size_t part) noexcept {
    const auto* words = reinterpret_cast<const std::uint64_t*>(from);
    const std::size_t count = part / sizeof(std::uint64_t);
    uint64x2_t a = vdupq_n_u64(0);
    uint64x2_t b = a;
    uint64x2_t c = a;
    uint64x2_t d = a;
    for (std::size_t i = 0; i < count; i += 2, words += 2) {
        a = veorq_u64(a, vld1q_u64(words));
        b = veorq_u64(b, vld1q_u64(words + count));
        c = veorq_u64(c, vld1q_u64(words + 2 * count));
        d = veorq_u64(d, vld1q_u64(words + 3 * count));
    }
    keep(vgetq_lane_u64(veorq_u64(veorq_u64(a, b), veorq_u64(c, d)), 0));
}
#endif

inline auto reader() noexcept {
    void (*read)(const std::byte*, std::size_t) noexcept = read_plain;
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2") != 0) read = read_avx2;
    if (__builtin_cpu_supports("avx512f") != 0) read = read_avx512;
#elif defined(__aarch64__)
    read = read_neon;
#endif
    return read;
}

/// Anonymous memory in pages of 2 MB, where the system gives such.
class Pages {
public:
    static constexpr std::size_t page = std::size_t{1} << 21;

    explicit Pages(std::size_t bytes) : mapped_(bytes + page) {
        void* const at = ::mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (at == MAP_FAILED) throw std::bad_alloc();
        base_ = static_cast<std::byte*>(at);
        const auto address = reinterpret_cast<std::uintptr_t>(base_);
        data_ = base_ + (page - address % page) % page;
        ::madvise(data_, bytes, MADV_HUGEPAGE);
    }
    ~Pages() { ::munmap(base_, mapped_); }
    Pages(const Pages&) = delete;
    Pages& operator=(const Pages&) = delete;

    [[nodiscard]] std::byte* data() const noexcept { return data_; }

private:
    std::size_t mapped_;
    std::byte* base_;
    std::byte* data_;
};

/// Two vectors of operands; what they hold matters little, but zeros might draw less power than numbers do.
struct alignas(64) Operands {
    std::array<std::uint8_t, 64> bytes{};
    std::array<float, 16> floats{};

    constexpr Operands() {
        for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::uint8_t>(i * 37 % 128);
        for (std::size_t i = 0; i < floats.size(); ++i) floats[i] = 1.0f / static_cast<float>(i + 1);
    }
};
inline constexpr Operands operands;

// Loops over independent accumulators, 0 to 11 or 13, with their operands in registers 14 and 15. A compiler
// without further flags knows no registers above 15 and no instructions beyond SSE2; its assembler does.
#if defined(__x86_64__)
#define ZSE_TWELVE(step) \
    step(0) step(1) step(2) step(3) step(4) step(5) step(6) step(7) step(8) step(9) step(10) step(11)
#define ZSE_FOURTEEN(step) ZSE_TWELVE(step) step(12) step(13)
#define ZSE_LOOP(load, r, body)                                                                            \
    asm volatile(load " (%[from]), %%" r "14\n\t" load " (%[from]), %%" r                                  \
                      "15\n\t"                                                                             \
                      ".p2align 5\n"                                                                       \
                      "1:\n\t" body                                                                        \
                      "dec %[rounds]\n\t"                                                                  \
                      "jnz 1b\n\t"                                                                         \
                      "vzeroupper"                                                                         \
                 : [rounds] "+r"(rounds)                                                                   \
                 : [from] "r"(from)                                                                        \
                 : "cc", "memory", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", \
                   "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15")
#define ZSE_MADDUBS_YMM(n)                     \
    "vpmaddubsw %%ymm14, %%ymm15, %%ymm13\n\t" \
    "vpaddw %%ymm13, %%ymm" #n ", %%ymm" #n "\n\t"
#define ZSE_MADDUBS_ZMM(n)                     \
    "vpmaddubsw %%zmm14, %%zmm15, %%zmm13\n\t" \
    "vpaddw %%zmm13, %%zmm" #n ", %%zmm" #n "\n\t"
#define ZSE_DPBUSD_ZMM(n) "vpdpbusd %%zmm14, %%zmm15, %%zmm" #n "\n\t"
#define ZSE_FMA_YMM(n) "vfmadd231ps %%ymm14, %%ymm15, %%ymm" #n "\n\t"
#define ZSE_FMA_ZMM(n) "vfmadd231ps %%zmm14, %%zmm15, %%zmm" #n "\n\t"

/// Multiply-adds of one round.
constexpr double round_work(Mix mix) noexcept {
    switch (mix) {
        case Mix::maddubs_ymm: return 12 * 32;
        case Mix::maddubs_zmm: return 12 * 64;
        case Mix::dpbusd_zmm: return 14 * 64;
        case Mix::fma_ymm: return 14 * 8;
        case Mix::fma_zmm: return 14 * 16;
        default: return 0;
    }
}

inline void compute(Mix mix, std::uint64_t rounds) noexcept {
    const void* from = operands.bytes.data();
    if (mix == Mix::fma_ymm || mix == Mix::fma_zmm) from = operands.floats.data();
    switch (mix) {
        case Mix::maddubs_ymm: ZSE_LOOP("vmovdqu", "ymm", ZSE_TWELVE(ZSE_MADDUBS_YMM)); break;
        case Mix::maddubs_zmm: ZSE_LOOP("vmovdqu64", "zmm", ZSE_TWELVE(ZSE_MADDUBS_ZMM)); break;
        case Mix::dpbusd_zmm: ZSE_LOOP("vmovdqu64", "zmm", ZSE_FOURTEEN(ZSE_DPBUSD_ZMM)); break;
        case Mix::fma_ymm: ZSE_LOOP("vmovups", "ymm", ZSE_FOURTEEN(ZSE_FMA_YMM)); break;
        case Mix::fma_zmm: ZSE_LOOP("vmovups", "zmm", ZSE_FOURTEEN(ZSE_FMA_ZMM)); break;
        default: break;
    }
}
#undef ZSE_TWELVE
#undef ZSE_FOURTEEN
#undef ZSE_LOOP
#undef ZSE_MADDUBS_YMM
#undef ZSE_MADDUBS_ZMM
#undef ZSE_DPBUSD_ZMM
#undef ZSE_FMA_YMM
#undef ZSE_FMA_ZMM
#elif defined(__aarch64__)
#define ZSE_SIXTEEN(step)                                                                             \
    step(0) step(1) step(2) step(3) step(4) step(5) step(6) step(7) step(8) step(9) step(10) step(11) \
        step(12) step(13) step(14) step(15)
#define ZSE_LOOP(body)                                                                                     \
    asm volatile(                                                                                          \
        ".arch armv8.2-a+dotprod\n\t"                                                                      \
        "ldr q30, [%[from]]\n\tldr q31, [%[from]]\n"                                                       \
        "1:\n\t" body                                                                                      \
        "subs %[rounds], %[rounds], #1\n\t"                                                                \
        "b.ne 1b"                                                                                          \
        : [rounds] "+r"(rounds)                                                                            \
        : [from] "r"(from)                                                                                 \
        : "cc", "memory", "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11", "v12", \
          "v13", "v14", "v15", "v30", "v31")
#define ZSE_SDOT(n) "sdot v" #n ".4s, v30.16b, v31.16b\n\t"
#define ZSE_FMLA(n) "fmla v" #n ".4s, v30.4s, v31.4s\n\t"

constexpr double round_work(Mix mix) noexcept {
    return mix == Mix::sdot ? 16 * 16 : mix == Mix::fmla ? 16 * 4 : 0;
}

inline void compute(Mix mix, std::uint64_t rounds) noexcept {
    const void* from = operands.bytes.data();
    if (mix == Mix::fmla) from = operands.floats.data();
    if (mix == Mix::sdot) {
        ZSE_LOOP(ZSE_SIXTEEN(ZSE_SDOT));
    } else if (mix == Mix::fmla) {
        ZSE_LOOP(ZSE_SIXTEEN(ZSE_FMLA));
    }
}
#undef ZSE_SIXTEEN
#undef ZSE_LOOP
#undef ZSE_SDOT
#undef ZSE_FMLA
#else
constexpr double round_work(Mix) noexcept {
    return 0;
}
inline void compute(Mix, std::uint64_t) noexcept {}
#endif

inline Rate peak(Mix mix, unsigned threads) {
    constexpr std::uint64_t rounds = std::uint64_t{1} << 20;  // some milliseconds
    const double work = static_cast<double>(threads) * static_cast<double>(rounds) * round_work(mix);
    return rate(
        threads, 30, work, [](unsigned) {}, [mix](unsigned) { compute(mix, rounds); });
}

}  // namespace detail

/// Bytes a second that `threads` read from about `bytes` of memory, each from a part of its own that it was
/// first to touch. Choose more bytes than the caches hold.
inline Rate read_bandwidth(unsigned threads, std::size_t bytes) {
    const std::size_t unit = detail::streams * detail::line;
    const std::size_t share = std::max(bytes / threads / unit, std::size_t{1}) * unit;
    const detail::Pages memory(share * threads);
    const auto read = detail::reader();
    const auto of = [&](unsigned thread) { return memory.data() + thread * share; };
    return detail::rate(
        threads, 12, static_cast<double>(share * threads),
        [&](unsigned thread) { std::fill_n(of(thread), share, std::byte{1}); },
        [&](unsigned thread) { read(of(thread), share / detail::streams); });
}

/// Multiply-adds a second of a mix that `runs()` here; operands stay in registers.
inline Rate integer_peak(Mix mix, unsigned threads) {
    return detail::peak(mix, threads);
}
inline Rate float_peak(Mix mix, unsigned threads) {
    return detail::peak(mix, threads);
}

}  // namespace zse_bench
