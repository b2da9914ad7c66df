// Whether this is built with a sanitizer: many times slower, and in need of
// memory of its own.
#ifndef SPARSE_FFN_TESTS_SANITIZED_H_
#define SPARSE_FFN_TESTS_SANITIZED_H_

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SPARSE_FFN_TEST_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SPARSE_FFN_TEST_SANITIZED 1
#endif
#endif

namespace sparse_ffn {

#ifdef SPARSE_FFN_TEST_SANITIZED
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif

}  // namespace sparse_ffn

#endif  // SPARSE_FFN_TESTS_SANITIZED_H_
