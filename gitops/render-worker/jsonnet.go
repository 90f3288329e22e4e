package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"

	"github.com/google/go-jsonnet"
)

// jsonnetRequest asks for one file to be evaluated.
type jsonnetRequest struct {
	Path    string            `json:"path"`
	ExtVars []jsonnetVariable `json:"extVars"`
	TLAs    []jsonnetVariable `json:"tlas"`
	Libs    []string          `json:"libs"`
}

type jsonnetVariable struct {
	Name  string `json:"name"`
	Value string `json:"value"`
	Code  bool   `json:"code"`
}

func renderJsonnet(files *hostFiles, req *jsonnetRequest) ([]json.RawMessage, error) {
	source, err := files.read(req.Path)
	if err != nil {
		return nil, err
	}
	vm := jsonnet.MakeVM()
	vm.Importer(&importer{files: files, libs: req.Libs, known: map[string]*jsonnet.Contents{}})
	for _, v := range req.ExtVars {
		if v.Code {
			vm.ExtCode(v.Name, v.Value)
		} else {
			vm.ExtVar(v.Name, v.Value)
		}
	}
	for _, v := range req.TLAs {
		if v.Code {
			vm.TLACode(v.Name, v.Value)
		} else {
			vm.TLAVar(v.Name, v.Value)
		}
	}
	output, err := vm.EvaluateAnonymousSnippet(req.Path, string(source))
	if err != nil {
		return nil, err
	}
	value := bytes.TrimSpace([]byte(output))
	if bytes.HasPrefix(value, []byte("[")) {
		var list []json.RawMessage
		err := json.Unmarshal(value, &list)
		return list, err
	}
	return []json.RawMessage{value}, nil
}

type importer struct {
	files *hostFiles
	libs  []string
	known map[string]*jsonnet.Contents
}

func (i *importer) Import(from, wanted string) (jsonnet.Contents, string, error) {
	candidates := []string{path.Join(path.Dir(from), wanted)}
	if path.IsAbs(wanted) {
		candidates = []string{path.Clean(wanted)[1:]}
	}
	// The library that was named last is looked at first, as jsonnet's command line does.
	for at := len(i.libs) - 1; at >= 0; at-- {
		candidates = append(candidates, path.Join(i.libs[at], wanted))
	}
	for _, candidate := range candidates {
		if contents, ok := i.known[candidate]; ok {
			if contents == nil {
				continue
			}
			return *contents, candidate, nil
		}
		data, err := i.files.read(candidate)
		if errors.Is(err, fs.ErrNotExist) {
			i.known[candidate] = nil
			continue
		}
		if err != nil {
			return jsonnet.Contents{}, "", err
		}
		contents := jsonnet.MakeContents(string(data))
		i.known[candidate] = &contents
		return contents, candidate, nil
	}
	return jsonnet.Contents{}, "", fmt.Errorf("couldn't open import %q: no match locally or in the library paths", wanted)
}
