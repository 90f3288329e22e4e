package main

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// A frame is two lengths of four bytes, big endian, then as many bytes of JSON and of data.
const maxFrame = 1 << 30

type connection struct {
	in  *bufio.Reader
	out *bufio.Writer
}

func (c *connection) receive() (header, data []byte, err error) {
	var lengths [8]byte
	if _, err := io.ReadFull(c.in, lengths[:]); err != nil {
		return nil, nil, err
	}
	headerLength, dataLength := binary.BigEndian.Uint32(lengths[:4]), binary.BigEndian.Uint32(lengths[4:])
	if headerLength > maxFrame || dataLength > maxFrame {
		return nil, nil, fmt.Errorf("a frame of %d and %d bytes; at most %d each are taken", headerLength, dataLength, maxFrame)
	}
	buffer := make([]byte, uint64(headerLength)+uint64(dataLength))
	if _, err := io.ReadFull(c.in, buffer); err != nil {
		return nil, nil, err
	}
	return buffer[:headerLength:headerLength], buffer[headerLength:], nil
}

func (c *connection) send(header any, data []byte) error {
	encoded, err := json.Marshal(header)
	if err != nil {
		return err
	}
	var lengths [8]byte
	binary.BigEndian.PutUint32(lengths[:4], uint32(len(encoded)))
	binary.BigEndian.PutUint32(lengths[4:], uint32(len(data)))
	for _, part := range [][]byte{lengths[:], encoded, data} {
		if _, err := c.out.Write(part); err != nil {
			return err
		}
	}
	return c.out.Flush()
}

// kinds of things that a path leads to
const (
	kindFile      = "file"
	kindDirectory = "directory"
	kindAbsent    = "absent"
)

// question asks the other side about a path from the root of the repository.
type question struct {
	Op   string `json:"op"`
	Path string `json:"path"`
}

// answer is what the other side knows about it.
type answer struct {
	Kind string `json:"kind"`
	// Path is the same path without links.
	Path    string  `json:"path"`
	Entries []entry `json:"entries"`
	Error   string  `json:"error"`
}

// entry is a line of a directory, or with Size a file of a tree.
type entry struct {
	Name string `json:"name"`
	Kind string `json:"kind"`
	Size int    `json:"size"`
}

// hostFiles are the files of the repository, as the other side hands them out.
type hostFiles struct {
	conn   *connection
	remote bool
}

func (h *hostFiles) ask(op, path string) (*answer, []byte, error) {
	if err := h.conn.send(question{Op: op, Path: path}, nil); err != nil {
		return nil, nil, err
	}
	header, data, err := h.conn.receive()
	if err != nil {
		return nil, nil, err
	}
	var a answer
	if err := json.Unmarshal(header, &a); err != nil {
		return nil, nil, err
	}
	if a.Error != "" {
		return nil, nil, errors.New(a.Error)
	}
	return &a, data, nil
}

// stat says what is at a path.
func (h *hostFiles) stat(path string) (*answer, error) {
	a, _, err := h.ask("stat", path)
	return a, err
}

// read returns a file's content.
func (h *hostFiles) read(path string) ([]byte, error) {
	a, data, err := h.ask("read", path)
	if err != nil {
		return nil, err
	}
	if a.Kind == kindDirectory {
		return nil, fmt.Errorf("read %s: is a directory", path)
	}
	if a.Kind != kindFile {
		return nil, &notFound{path}
	}
	return data, nil
}

// list returns the lines of a directory.
func (h *hostFiles) list(path string) ([]entry, error) {
	a, _, err := h.ask("list", path)
	if err != nil {
		return nil, err
	}
	if a.Kind != kindDirectory {
		return nil, &notFound{path}
	}
	return a.Entries, nil
}

// file is one of a tree, with its path in there.
type file struct {
	name string
	data []byte
}

// tree returns all files under a path.
func (h *hostFiles) tree(path string) ([]file, error) {
	a, data, err := h.ask("tree", path)
	if err != nil {
		return nil, err
	}
	if a.Kind != kindDirectory {
		return nil, &notFound{path}
	}
	files := make([]file, 0, len(a.Entries))
	for _, e := range a.Entries {
		if e.Size < 0 || e.Size > len(data) {
			return nil, fmt.Errorf("tree %s: %s has an impossible size", path, e.Name)
		}
		files = append(files, file{e.Name, data[:e.Size:e.Size]})
		data = data[e.Size:]
	}
	return files, nil
}
