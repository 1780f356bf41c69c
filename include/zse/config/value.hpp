// SPDX-License-Identifier: Apache-2.0
// Values as files and the environment write them, turned into what the option's flag takes; vLLM's and Ollama's words
// for precisions become this program's.
#pragma once

#include <zse/config/option.hpp>
#include <zse/core/size.hpp>

#include <charconv>
#include <cmath>
#include <optional>
#include <string>
#include <string_view>

namespace zse::inline v1 {
namespace config {

/// A value that was read: what the flag takes, or a note on why there is no effect.
struct Value {
    std::string flag;
    std::string note;
};

namespace detail {

inline std::string lowered(std::string_view raw) {
    std::string low(raw);
    std::transform(low.begin(), low.end(), low.begin(), v1::detail::lower);
    return low;
}

inline Error expected(std::string_view what, std::string_view found) {
    return {ErrorCode::usage, text("expected ", what, ", found ", v1::detail::shown(found))};
}

/// Yes, no, or neither.
inline std::optional<bool> truth(std::string_view low) {
    if (has_word("true yes on 1", low)) return true;
    if (has_word("false no off 0", low)) return false;
    return std::nullopt;
}

inline std::optional<double> real(std::string_view raw) {
    double value = 0;
    const auto end = raw.data() + raw.size();
    const auto [stop, error] = std::from_chars(raw.data(), end, value);
    if (error != std::errc() || stop != end || !std::isfinite(value)) return std::nullopt;
    return value;
}

/// Digits alone, without a sign; zeros before them mean nothing.
inline std::optional<std::uint64_t> whole(std::string_view raw) {
    std::uint64_t value = 0;
    const auto end = raw.data() + raw.size();
    const auto [stop, error] = std::from_chars(raw.data(), end, value);
    if (error != std::errc() || stop != end) return std::nullopt;
    return value;
}

/// "5m", "1h30m", "1.5h"; a number alone is seconds, and below 0 for ever.
inline bool is_duration(std::string_view raw) {
    if (raw.starts_with('-')) raw.remove_prefix(1);
    if (real(raw)) return !raw.starts_with('-');
    if (raw.empty()) return false;
    while (!raw.empty()) {
        const std::size_t digits = std::min(raw.find_first_not_of("0123456789."), raw.size());
        if (!real(raw.substr(0, digits))) return false;
        raw.remove_prefix(digits);
        const std::size_t unit = std::min(raw.find_first_of("0123456789."), raw.size());
        if (!has_word("ns us ms s m h", raw.substr(0, unit))) return false;
        raw.remove_prefix(unit);
    }
    return true;
}

/// Names of precisions of weights; a way to quantise that is known but not built has a note.
inline Value weights_value(const std::string& low) {
    if (has_word("auto none gguf", low)) return {"as-stored", ""};
    if (has_word("bitsandbytes bnb", low)) return {"nf4", ""};
    constexpr std::string_view known =
        "awq awq_marlin gptq gptq_marlin marlin fp8 fbgemm_fp8 int4 aqlm exl2 exl3 eetq hqq squeezellm "
        "compressed-tensors deepspeedfp modelopt quark torchao";
    if (has_word(known, low)) {
        return {"", text("'", low,
                         "' is not built: weights stay as they are stored; 'weights: nf4' holds 4 "
                         "bits, 'weights: int8' 8")};
    }
    return {low, ""};
}

/// Names of precisions of keys and values, of which Ollama's and vLLM's become this program's.
inline std::string kv_value(const std::string& low) {
    if (has_word("auto half float16 fp16", low)) return "f16";
    if (has_word("float32 fp32", low)) return "f32";
    if (low == "q8_0") return "int8";
    if (low == "q4_0") return "int4";
    if (low == "fp8_e4m3") return "fp8";
    return low;
}

inline Result<Value> share(const Option& option, std::string_view raw) {
    const auto value = real(raw);
    const bool used = option.kind == Kind::used;
    if (value && *value >= 0 && *value <= 1 && *value != (used ? 0.0 : 1.0))
        return Value{std::string(raw), ""};
    return expected(
        used ? "a share above 0 and at most 1, such as 0.9" : "a share from 0 to below 1, such as 0.2", raw);
}

inline Result<Value> tokens(std::string_view raw) {
    const auto count = parse_tokens(raw);
    if (!count) return count.error();
    if (count.value() == 0 || count.value() > std::uint64_t{1} << 30)
        return expected("1 to 2^30 tokens, such as 4096 or 128K", raw);
    return Value{std::to_string(count.value()), ""};
}

inline Result<Value> boolean(std::string_view raw) {
    const auto value = truth(lowered(raw));
    if (!value) return expected("true or false", raw);
    return Value{*value ? "true" : "false", ""};
}

/// Whether this is flash attention, or the kernel's name.
inline Value attention_value(const std::string& low) {
    const auto flash = truth(low);
    if (!flash) return {low, ""};
    if (*flash) return {"flash", ""};
    return {"",
            "the attention of this program needs no switch; 'attention: reference' is a slow one for checks"};
}

/// Without the note of an option that is not built.
inline Result<Value> plain_value(const Option& option, std::string_view raw) {
    const std::string low = lowered(raw);
    const auto as_it_is = [&](bool fine, std::string_view what) -> Result<Value> {
        if (!fine) return expected(what, raw);
        return Value{std::string(raw), ""};
    };
    switch (option.kind) {
        case Kind::boolean: return boolean(raw);
        case Kind::dtype:
            return as_it_is(has_word("auto half float16 bfloat16 float float32", low),
                            "auto, half, float16, bfloat16, float or float32");
        case Kind::count: {
            const auto value = whole(raw);
            if (!value) return expected("a whole number", raw);
            return Value{std::to_string(*value), ""};
        }
        case Kind::number: return as_it_is(real(raw).has_value(), "a number");
        case Kind::headroom:
        case Kind::used: return share(option, raw);
        case Kind::tokens: return tokens(raw);
        case Kind::size: {
            const auto size = parse_size(raw);
            if (!size) return size.error();
            return Value{std::string(raw), ""};
        }
        case Kind::gigabytes: {
            const auto value = real(raw);
            return as_it_is(value && *value >= 0, "a number of gigabytes, such as 4");
        }
        case Kind::duration: return as_it_is(is_duration(low), "a time, such as 5m, 1h30m, or -1");
        case Kind::weights: return weights_value(low);
        case Kind::kv: return Value{kv_value(low), ""};
        case Kind::attention: return attention_value(low);
        case Kind::text:
        case Kind::tiers:
        case Kind::anything: break;
    }
    return as_it_is(!raw.empty(), "a value");
}

}  // namespace detail

/// The value of an option. Error: usage, what was expected and what was found.
inline Result<Value> value_of(const Option& option, std::string_view raw) {
    Result<Value> value = detail::plain_value(option, raw);
    if (!value || option.note.empty()) return value;
    const bool quiet = !option.quiet.empty() && value.value().flag == option.quiet;
    return Value{"", quiet ? "" : std::string(option.note)};
}

}  // namespace config
}  // namespace zse::inline v1
