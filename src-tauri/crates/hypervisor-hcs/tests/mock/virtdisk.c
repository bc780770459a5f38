/* Stands in for virtdisk.dll under wine: a virtual disk is an empty file. */
#include <windows.h>
#include <virtdisk.h>

DWORD WINAPI CreateVirtualDisk(PVIRTUAL_STORAGE_TYPE type, PCWSTR path, VIRTUAL_DISK_ACCESS_MASK access,
                               PSECURITY_DESCRIPTOR security, CREATE_VIRTUAL_DISK_FLAG flags, ULONG provider,
                               PCREATE_VIRTUAL_DISK_PARAMETERS parameters, LPOVERLAPPED overlapped, PHANDLE handle)
{
    (void)type, (void)access, (void)security, (void)flags, (void)provider, (void)parameters, (void)overlapped;
    *handle = CreateFileW(path, GENERIC_WRITE, 0, NULL, CREATE_NEW, FILE_ATTRIBUTE_NORMAL, NULL);
    return *handle == INVALID_HANDLE_VALUE ? GetLastError() : ERROR_SUCCESS;
}
