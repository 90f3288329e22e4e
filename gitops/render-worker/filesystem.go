package main

import (
	"bytes"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"sigs.k8s.io/kustomize/kyaml/filesys"
)

// mount is where the repository lies for Kustomize, which wants absolute paths. Nothing on the disk has this name.
const mount = "/repository"

// notFound reads like the operating system's error and counts as it.
type notFound struct{ path string }

func (e *notFound) Error() string        { return e.path + ": no such file or directory" }
func (e *notFound) Is(target error) bool { return target == fs.ErrNotExist }

// repositoryFS shows Kustomize the repository, with some files replaced, and the directories that it clones remote bases
// into. Everything else on the disk does not exist for it.
type repositoryFS struct {
	files   *hostFiles
	overlay map[string][]byte
	disk    filesys.FileSystem
}

var _ filesys.FileSystem = &repositoryFS{}

// inside returns a path's place in the repository.
func inside(name string) (string, bool) {
	name = path.Clean(name)
	if name == mount {
		return "", true
	}
	rest, ok := strings.CutPrefix(name, mount+"/")
	return rest, ok
}

// cloned says whether a path belongs to a remote base that Kustomize has cloned.
func cloned(name string) bool {
	temporary, err := filepath.EvalSymlinks(os.TempDir())
	if err != nil {
		temporary = os.TempDir()
	}
	for _, dir := range []string{os.TempDir(), temporary} {
		if strings.HasPrefix(path.Clean(name), filepath.Join(dir, "kustomize-")) {
			return true
		}
	}
	return false
}

func refused(op, name string) error {
	return &fs.PathError{Op: op, Path: name, Err: fs.ErrPermission}
}

func (r *repositoryFS) Create(name string) (filesys.File, error) {
	if cloned(name) {
		return r.disk.Create(name)
	}
	return nil, refused("create", name)
}

func (r *repositoryFS) Mkdir(name string) error {
	if cloned(name) {
		return r.disk.Mkdir(name)
	}
	return refused("mkdir", name)
}

func (r *repositoryFS) MkdirAll(name string) error {
	if cloned(name) {
		return r.disk.MkdirAll(name)
	}
	return refused("mkdir", name)
}

func (r *repositoryFS) RemoveAll(name string) error {
	if cloned(name) {
		return r.disk.RemoveAll(name)
	}
	return refused("remove", name)
}

func (r *repositoryFS) WriteFile(name string, data []byte) error {
	if cloned(name) {
		return r.disk.WriteFile(name, data)
	}
	return refused("write", name)
}

func (r *repositoryFS) Open(name string) (filesys.File, error) {
	if cloned(name) {
		r.files.remote = true
		return r.disk.Open(name)
	}
	data, err := r.ReadFile(name)
	if err != nil {
		return nil, err
	}
	return &memoryFile{Reader: bytes.NewReader(data), info: fileInfo{name: path.Base(name), size: int64(len(data))}}, nil
}

func (r *repositoryFS) kind(name string) string {
	if rest, ok := inside(name); ok {
		if a, err := r.files.stat(rest); err == nil {
			return a.Kind
		}
		return kindAbsent
	}
	if path.Clean(name) == "/" {
		return kindDirectory
	}
	return kindAbsent
}

func (r *repositoryFS) IsDir(name string) bool {
	if cloned(name) {
		return r.disk.IsDir(name)
	}
	return r.kind(name) == kindDirectory
}

func (r *repositoryFS) Exists(name string) bool {
	if cloned(name) {
		return r.disk.Exists(name)
	}
	return r.kind(name) != kindAbsent
}

func (r *repositoryFS) ReadDir(name string) ([]string, error) {
	if cloned(name) {
		return r.disk.ReadDir(name)
	}
	rest, ok := inside(name)
	if !ok {
		return nil, &notFound{name}
	}
	entries, err := r.files.list(rest)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name
	}
	return names, nil
}

func (r *repositoryFS) CleanedAbs(name string) (filesys.ConfirmedDir, string, error) {
	if cloned(name) {
		return r.disk.CleanedAbs(name)
	}
	rest, ok := inside(name)
	if !ok {
		if path.Clean(name) == "/" {
			return "/", "", nil
		}
		return "", "", &notFound{name}
	}
	a, err := r.files.stat(rest)
	if err != nil {
		return "", "", err
	}
	full := path.Join(mount, a.Path)
	switch a.Kind {
	case kindDirectory:
		return filesys.ConfirmedDir(full), "", nil
	case kindFile:
		return filesys.ConfirmedDir(path.Dir(full)), path.Base(full), nil
	}
	return "", "", &notFound{name}
}

func (r *repositoryFS) ReadFile(name string) ([]byte, error) {
	if cloned(name) {
		r.files.remote = true
		return r.disk.ReadFile(name)
	}
	rest, ok := inside(name)
	if !ok {
		return nil, &notFound{name}
	}
	if data, ok := r.overlay[rest]; ok {
		return data, nil
	}
	return r.files.read(rest)
}

func (r *repositoryFS) Glob(pattern string) ([]string, error) {
	if cloned(pattern) {
		return r.disk.Glob(pattern)
	}
	// Only the last part is matched against names; the parts before it are matched level by level.
	parts := strings.Split(strings.TrimPrefix(path.Clean(pattern), "/"), "/")
	found := []string{"/"}
	for _, part := range parts {
		var next []string
		for _, dir := range found {
			if !strings.ContainsAny(part, "*?[\\") {
				if full := path.Join(dir, part); full == mount || r.Exists(full) {
					next = append(next, full)
				}
				continue
			}
			if !r.IsDir(dir) {
				continue
			}
			names, err := r.ReadDir(dir)
			if err != nil {
				continue
			}
			for _, name := range names {
				matched, err := path.Match(part, name)
				if err != nil {
					return nil, err
				}
				if matched {
					next = append(next, path.Join(dir, name))
				}
			}
		}
		found = next
	}
	return found, nil
}

func (r *repositoryFS) Walk(name string, walk filepath.WalkFunc) error {
	if cloned(name) {
		return r.disk.Walk(name, walk)
	}
	err := r.walk(name, walk)
	if err == filepath.SkipDir || err == filepath.SkipAll {
		return nil
	}
	return err
}

func (r *repositoryFS) walk(name string, walk filepath.WalkFunc) error {
	kind := r.kind(name)
	info := fileInfo{name: path.Base(name), directory: kind == kindDirectory}
	if kind == kindAbsent {
		return walk(name, nil, &notFound{name})
	}
	if err := walk(name, info, nil); err != nil || kind != kindDirectory {
		return err
	}
	names, err := r.ReadDir(name)
	if err != nil {
		return walk(name, info, err)
	}
	for _, child := range names {
		if err := r.walk(path.Join(name, child), walk); err != nil && err != filepath.SkipDir {
			return err
		}
	}
	return nil
}

type memoryFile struct {
	*bytes.Reader
	info fileInfo
}

func (f *memoryFile) Close() error                       { return nil }
func (f *memoryFile) Write([]byte) (int, error)          { return 0, fs.ErrPermission }
func (f *memoryFile) Stat() (fs.FileInfo, error)         { return f.info, nil }
func (f *memoryFile) Read(p []byte) (int, error)         { return f.Reader.Read(p) }
func (f *memoryFile) WriteTo(w io.Writer) (int64, error) { return f.Reader.WriteTo(w) }

type fileInfo struct {
	name      string
	size      int64
	directory bool
}

func (i fileInfo) Name() string { return i.name }
func (i fileInfo) Size() int64  { return i.size }
func (i fileInfo) Mode() fs.FileMode {
	if i.directory {
		return fs.ModeDir | 0o755
	}
	return 0o644
}
func (i fileInfo) ModTime() time.Time { return time.Time{} }
func (i fileInfo) IsDir() bool        { return i.directory }
func (i fileInfo) Sys() any           { return nil }
