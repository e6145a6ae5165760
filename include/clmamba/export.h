/* Visibility of the public symbols. */
#ifndef CLMAMBA_EXPORT_H
#define CLMAMBA_EXPORT_H

#ifdef __cplusplus
#define CLM_BEGIN_DECLS extern "C" {
#define CLM_END_DECLS   }
#else
#define CLM_BEGIN_DECLS
#define CLM_END_DECLS
#endif

#if defined(_WIN32) && !defined(CLM_STATIC)
#ifdef CLM_BUILDING
#define CLM_API __declspec(dllexport)
#else
#define CLM_API __declspec(dllimport)
#endif
#elif defined(__GNUC__)
#define CLM_API __attribute__((visibility("default")))
#else
#define CLM_API
#endif

#endif
