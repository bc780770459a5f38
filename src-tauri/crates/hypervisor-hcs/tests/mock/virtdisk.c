/* Stands in for virtdisk.dll under wine: a virtual disk is a file that holds its size. One beside which lies a file with
 * `.held` at the end is in use, once. */
#define _WIN32_WINNT 0x0602
#include <windows.h>
#include <virtdisk.h>

static DWORD put(HANDLE disk, ULONGLONG size)
{
    DWORD written;
    SetFilePointer(disk, 0, NULL, FILE_BEGIN);
    return WriteFile(disk, &size, sizeof size, &written, NULL) ? ERROR_SUCCESS : GetLastError();
}

DWORD WINAPI CreateVirtualDisk(PVIRTUAL_STORAGE_TYPE type, PCWSTR path, VIRTUAL_DISK_ACCESS_MASK access,
                               PSECURITY_DESCRIPTOR security, CREATE_VIRTUAL_DISK_FLAG flags, ULONG provider,
                               PCREATE_VIRTUAL_DISK_PARAMETERS parameters, LPOVERLAPPED overlapped, PHANDLE handle)
{
    (void)type, (void)access, (void)security, (void)flags, (void)provider, (void)overlapped;
    *handle = CreateFileW(path, GENERIC_WRITE, 0, NULL, CREATE_NEW, FILE_ATTRIBUTE_NORMAL, NULL);
    return *handle == INVALID_HANDLE_VALUE ? GetLastError() : put(*handle, parameters->Version2.MaximumSize);
}

DWORD WINAPI OpenVirtualDisk(PVIRTUAL_STORAGE_TYPE type, PCWSTR path, VIRTUAL_DISK_ACCESS_MASK access,
                             OPEN_VIRTUAL_DISK_FLAG flags, POPEN_VIRTUAL_DISK_PARAMETERS parameters, PHANDLE handle)
{
    WCHAR held[MAX_PATH];
    (void)type, (void)access, (void)flags, (void)parameters;
    lstrcpynW(held, path, MAX_PATH - 5);
    lstrcatW(held, L".held");
    if (DeleteFileW(held))
        return ERROR_SHARING_VIOLATION;
    *handle = CreateFileW(path, GENERIC_READ | GENERIC_WRITE, 0, NULL, OPEN_EXISTING, FILE_ATTRIBUTE_NORMAL, NULL);
    return *handle == INVALID_HANDLE_VALUE ? GetLastError() : ERROR_SUCCESS;
}

DWORD WINAPI GetVirtualDiskInformation(HANDLE disk, PULONG room, PGET_VIRTUAL_DISK_INFO told, PULONG used)
{
    DWORD count;
    (void)used;
    if (*room < sizeof *told || told->Version != GET_VIRTUAL_DISK_INFO_SIZE)
        return ERROR_INVALID_PARAMETER;
    return ReadFile(disk, &told->Size.VirtualSize, sizeof(ULONGLONG), &count, NULL) ? ERROR_SUCCESS : GetLastError();
}

DWORD WINAPI ResizeVirtualDisk(HANDLE disk, RESIZE_VIRTUAL_DISK_FLAG flags, PRESIZE_VIRTUAL_DISK_PARAMETERS parameters,
                               LPOVERLAPPED overlapped)
{
    (void)flags, (void)overlapped;
    return put(disk, parameters->Version1.NewSize);
}
