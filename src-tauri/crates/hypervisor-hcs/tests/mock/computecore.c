/* Stands in for computecore.dll under wine: as much of the Host Compute Service as a machine's life takes.
 *
 * A system exits gracefully when it is asked to shut down and by force when it is terminated. What it was given is
 * written to the folder that CAISSON_MOCK names: the document, and the files that it may open, one a line. If the file
 * `refuse` is there, creating a system fails as it does for a user without the right to. */
#include <stdio.h>
#include <stdlib.h>
#include <windows.h>

#define API __declspec(dllexport)

typedef struct { int type; const wchar_t *data; void *operation; } Event;
typedef void (WINAPI *Callback)(const Event *, const void *);
typedef struct { Callback callback; const void *context; } System;
typedef struct { const wchar_t *result; } Operation;

static FILE *file(const char *name, const char *mode)
{
    /* Not getenv: that shows the environment of when this library was loaded. */
    char folder[MAX_PATH] = ".", path[MAX_PATH * 2];
    GetEnvironmentVariableA("CAISSON_MOCK", folder, sizeof folder);
    snprintf(path, sizeof path, "%s\\%s", folder, name);
    return fopen(path, mode);
}

static DWORD WINAPI exited(void *argument)
{
    void **call = argument;
    System *system = call[0];
    Event event = { 1, call[1], NULL };
    if (system->callback)
        system->callback(&event, system->context);
    free(call);
    return 0;
}

static HRESULT exit_with(System *system, const wchar_t *data)
{
    void **call = malloc(2 * sizeof *call);
    call[0] = system;
    call[1] = (void *)data;
    /* The real service calls from a thread of its own. */
    CloseHandle(CreateThread(NULL, 0, exited, call, 0, NULL));
    return S_OK;
}

API void *WINAPI HcsCreateOperation(const void *context, void *callback)
{
    (void)context, (void)callback;
    return calloc(1, sizeof(Operation));
}

API void WINAPI HcsCloseOperation(Operation *operation) { free(operation); }

API HRESULT WINAPI HcsWaitForOperationResult(Operation *operation, DWORD limit, wchar_t **result)
{
    (void)limit;
    if (operation->result) {
        size_t size = (wcslen(operation->result) + 1) * sizeof(wchar_t);
        *result = LocalAlloc(LMEM_FIXED, size);
        memcpy(*result, operation->result, size);
    }
    return S_OK;
}

API HRESULT WINAPI HcsCreateComputeSystem(const wchar_t *id, const wchar_t *document, Operation *operation,
                                          const void *security, System **system)
{
    FILE *out = file("refuse", "r");
    (void)id, (void)operation, (void)security;
    if (out) {
        fclose(out);
        return E_ACCESSDENIED;
    }
    out = file("document.json", "w");
    fprintf(out, "%ls", document);
    fclose(out);
    *system = calloc(1, sizeof **system);
    return S_OK;
}

/* Systems are not freed: a thread may still tell of their exit. */
API void WINAPI HcsCloseComputeSystem(System *system) { system->callback = NULL; }

API HRESULT WINAPI HcsStartComputeSystem(System *system, Operation *operation, const wchar_t *options)
{
    (void)system, (void)operation, (void)options;
    return S_OK;
}

API HRESULT WINAPI HcsShutDownComputeSystem(System *system, Operation *operation, const wchar_t *options)
{
    (void)operation, (void)options;
    return exit_with(system, L"{\"Status\":0,\"ExitType\":\"GracefulExit\"}");
}

API HRESULT WINAPI HcsTerminateComputeSystem(System *system, Operation *operation, const wchar_t *options)
{
    (void)operation, (void)options;
    return exit_with(system, L"{\"Status\":0,\"ExitType\":\"ForcedExit\"}");
}

API HRESULT WINAPI HcsGetComputeSystemProperties(System *system, Operation *operation, const wchar_t *query)
{
    (void)system, (void)query;
    operation->result = L"{\"Id\":\"m\",\"RuntimeId\":\"8D7F5C1E-0000-4000-8000-00000000CA15\"}";
    return S_OK;
}

API HRESULT WINAPI HcsSetComputeSystemCallback(System *system, int options, const void *context, Callback callback)
{
    (void)options;
    system->context = context;
    system->callback = callback;
    return S_OK;
}

API HRESULT WINAPI HcsGrantVmAccess(const wchar_t *id, const wchar_t *path)
{
    FILE *out = file("granted", "a");
    (void)id;
    fprintf(out, "%ls\n", path);
    fclose(out);
    return S_OK;
}
