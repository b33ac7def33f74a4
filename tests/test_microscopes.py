"Microscopes' own formats where the plugins are installed: OME-Zarr by its writer, LIF and ND2 written here by their published layouts; a stand-in for CZI, whose plugin is not part of the extra; and what is said where no plugin is."
import importlib.util, os, struct, sys, types
import numpy as np, pytest

from celldeath_nb.photos.pixels import BadFile, StopWork
from celldeath_nb.photos.fields import list_images, read_fields
from celldeath_nb.photos.reading import read_header, read_image, read_photo
from celldeath_nb.tiles.cut import cut_tiles
from celldeath_nb.tiles.store import open_tiles

def needs(*modules):
    lost = [m for m in modules if not importlib.util.find_spec(m)]
    return pytest.mark.skipif(bool(lost), reason=f'{", ".join(lost)} not installed; pip install "celldeath_nb[microscopes]"')

zarrs,lifs = needs('bioio','bioio_ome_zarr'),needs('bioio','bioio_lif')

def pixels(*shape, seed=0, top=4000): return np.random.default_rng(seed).integers(0, top, shape, dtype=np.uint16)

# OME-Zarr --------------------------------------------------------------------------------------

def write_zarr(path, a, channels=('Phase',), um=.434, unit='micrometer', **kw):
    "`a` is [time, channel, depth, height, width]."
    from bioio_ome_zarr.writers import OMEZarrWriter
    from bioio_ome_zarr.writers.metadata import Channel
    w = OMEZarrWriter(os.fspath(path), a.shape, a.dtype, axes_names=list('tczyx'), physical_pixel_size=[1,1,1,um,um], axes_units=[None,None,unit,unit,unit],
        channels=[Channel(label=o, color='FFFFFF') for o in channels], **kw)
    w.write_full_volume(a)
    return path

@zarrs
@pytest.mark.parametrize('fmt', [2,3])
def test_a_set_of_ome_zarr(fmt, tmp_path):
    d,px = tmp_path/'p',[pixels(1,1,1,48,64, seed=i) for i in range(3)]
    for i,a in enumerate(px): write_zarr(d/f'U2_{"CPT" if i else "DMSO"}_1h_RGB_000{i}_N1.ome.zarr', a, zarr_format=fmt)
    f = read_fields(d)
    assert f.format.unique().tolist()==['OME-Zarr'] and np.allclose(f.um_per_px,.434) and f.site.tolist()==['0001','0002','0000'] and f.attrs['problems']==[]
    t = cut_tiles(f, tmp_path/'t')
    assert t.manifest['settings']['window']==[0,4095]
    for name,i in zip(f.field,(1,2,0)): np.testing.assert_array_equal(t.field(name), np.round(px[i][0,0,0]*255./4095).astype(np.uint8))
    assert open_tiles(tmp_path/'t', sources='stop').verify()==[]
    chunk = next(o for o in sorted((d/f.field[0]).rglob('*')) if o.is_file() and o.stat().st_size>1000)
    chunk.write_bytes(chunk.read_bytes()[:-1]+b'?')
    with pytest.warns(UserWarning, match='changed since it was cut'): open_tiles(tmp_path/'t')

@zarrs
def test_planes_and_channels(tmp_path):
    a = pixels(2,2,3,40,50)
    p = write_zarr(tmp_path/'x.ome.zarr', a, ('Phase','DAPI'))
    with pytest.raises(StopWork, match=r'6 planes \(1 scenes, up to 2 times and 3 depths\).*page=0'): read_header(p)
    with pytest.raises(StopWork, match="2 channels .Phase, DAPI.*channel='Phase'"): read_photo(p, page=0)
    for k,(page,c) in {'DAPI':(4,1), 1:(4,1), 'Phase':(5,0), '0':(0,0)}.items():
        ph = read_photo(p, page=page, channel=k)
        np.testing.assert_array_equal(ph.pixels, a[page//3,c,page%3])
        assert (ph.height,ph.width,ph.bits,ph.um_per_px)==(40,50,16,.434)
    with pytest.raises(BadFile, match='it has 6 planes'): read_photo(p, page=6, channel=0)
    with pytest.raises(ValueError, match="no channel 'GFP'; it has Phase, DAPI"): read_photo(p, page=0, channel='GFP')
    with pytest.raises(BadFile, match='max_mpx=1'): read_photo(p, 0, 0, max_mpx=.001)
    os.rename(p, tmp_path/'CPT_1.ome.zarr')
    with pytest.raises(StopWork): read_fields(tmp_path)
    with pytest.raises(StopWork, match='2 channels'): read_fields(tmp_path, page=1)
    t = cut_tiles(read_fields(tmp_path, page=1, channel=0), tmp_path/'t')
    np.testing.assert_array_equal(t[0], np.round(a[0,0,1,:20,:25]*255./4095))

@zarrs
def test_units_of_length(tmp_path):
    for um,unit,want in ((434.,'nanometer',.434),(.000434,'millimeter',.434),(.434,None,.434)):
        p = write_zarr(tmp_path/f'{unit}.zarr', pixels(1,1,1,8,8), um=um, unit=unit)
        assert read_header(p).um_per_px==pytest.approx(want)

@zarrs
def test_a_damaged_folder_is_left_out(tmp_path, capfd):
    for i in range(3): write_zarr(tmp_path/f'CPT_{i}.ome.zarr', pixels(1,1,1,48,64, seed=i), chunk_shape=(1,1,1,24,32))
    pieces = [sorted(o for o in (tmp_path/f'CPT_{i}.ome.zarr').rglob('*') if o.is_file() and o.name.isdigit()) for i in range(2)]
    pieces[0][2].unlink() # would be read as black
    pieces[1][1].write_bytes(pieces[1][1].read_bytes()[:700])
    (tmp_path/'CPT_4.ome.zarr').mkdir()
    f = read_fields(tmp_path, labels=['CPT'])
    said = {o['file']:o['reason'] for o in f.attrs['problems']}
    assert f.field.tolist()==['CPT_2.ome.zarr'] and 'CPT_4.ome.zarr' in said and capfd.readouterr().err==''
    assert '1 of 4 pieces of pixels are missing' in said['CPT_0.ome.zarr'] and 'piece c/0/0/0/0/1 is cut off' in said['CPT_1.ome.zarr']
    with pytest.raises(BadFile): read_fields(tmp_path, labels=['CPT'], on_error='raise')

@zarrs
@pytest.mark.parametrize('fmt', [2,3])
def test_a_piece_cut_anywhere(fmt, tmp_path):
    p = write_zarr(tmp_path/'x.zarr', pixels(1,1,1,48,64), zarr_format=fmt, chunk_shape=(1,1,1,24,64))
    f = [o for o in sorted(p.rglob('*')) if o.is_file() and o.name.isdigit()][1]
    b = f.read_bytes()
    for cut in (0,1,15,16,100,len(b)//2,len(b)-1):
        f.write_bytes(b[:cut])
        with pytest.raises(BadFile): read_photo(p)

def test_a_folder_of_zarr_is_one_picture(tmp_path):
    for o in ('a.zarr/0/c/0/x.png','b.OME.ZARR/.zattrs','c/d.ome.zarr/zarr.json'):
        (tmp_path/o).parent.mkdir(parents=True)
        (tmp_path/o).touch()
    assert [o.relative_to(tmp_path).as_posix() for o in list_images(tmp_path)]==['a.zarr','b.OME.ZARR','c/d.ome.zarr']

# LIF -------------------------------------------------------------------------------------------

def write_lif(path, scenes, um=.5):
    "A file of the Leica format, version 2, by its published layout; `scenes` are uint8 or uint16 [depth, height, width]."
    xml,blocks = '',b''
    piece = lambda s: struct.pack('<I', len(s))+s.encode('utf-16-le')
    for i,a in enumerate(scenes):
        n,h,w,b = *a.shape,a.itemsize
        dims = ''.join(f'<DimensionDescription DimID="{k}" NumberOfElements="{m}" Origin="0" Length="{l}" Unit="m" BytesInc="{inc}" BitInc="0"/>'
            for k,m,l,inc in ((1,w,um*1e-6*(w-1),b),(2,h,um*1e-6*(h-1),b*w),(3,n,1e-6*(n-1),b*w*h)) if m>1)
        xml += f'''<Element Name="S{i}" UniqueID="{i}"><Data><Image><ImageDescription><Channels><ChannelDescription DataType="0" ChannelTag="0" Resolution="{8*b}" NameOfMeasuredQuantity=""
            Min="0" Max="1" Unit="" LUTName="Gray" IsLUTInverted="0" BytesInc="0" BitInc="0"/></Channels><Dimensions>{dims}</Dimensions></ImageDescription></Image></Data>
            <Memory Size="{a.nbytes}" MemoryBlockID="MemBlock_{i}"/></Element>'''
        name = piece(f'MemBlock_{i}')
        blocks += struct.pack('<IIBQB', 0x70, 10+len(name), 0x2a, a.nbytes, 0x2a)+name+a.tobytes()
    xml = piece(f'<LMSDataContainerHeader Version="2"><Element Name="root"><Data/><Memory Size="0" MemoryBlockID="MemBlock_x"/><Children>{xml}</Children></Element></LMSDataContainerHeader>')
    path.write_bytes(struct.pack('<IIB', 0x70, 1+len(xml), 0x2a)+xml+blocks)
    return path

@lifs
@pytest.mark.parametrize('dtype', [np.uint8,np.uint16])
def test_lif(dtype, tmp_path, capfd):
    scenes = [pixels(1,30,40, seed=1, top=200).astype(dtype),pixels(3,20,50, seed=2, top=200).astype(dtype)]
    p = write_lif(tmp_path/'x.lif', scenes)
    with pytest.raises(StopWork, match=r'4 planes \(2 scenes'): read_header(p)
    for page,a in enumerate([scenes[0][0],*scenes[1]]):
        ph = read_photo(p, page=page)
        np.testing.assert_array_equal(ph.pixels, a)
        assert (ph.format,ph.height,ph.width,ph.bits)==('LIF',*a.shape,8*a.itemsize) and ph.um_per_px==pytest.approx(.5, rel=.05)
    b = p.read_bytes()
    for cut in (5,200,len(b)//2,len(b)-1):
        p.write_bytes(b[:cut])
        with pytest.raises(BadFile): read_photo(p, page=3)
    assert capfd.readouterr().err==''

# a stand-in ------------------------------------------------------------------------------------

class Picture:
    "What bioio's BioImage gives, as far as it is asked."
    def __init__(self, path, reader=None):
        if b'broken' in open(path,'rb').read(): raise RuntimeError('chunk map not found')
        self.scenes,self.k,self.channel_names,self.dtype = ('A','B'),0,['BF','GFP'],np.dtype(np.uint16)
        self.physical_pixel_sizes = types.SimpleNamespace(X=.65)
    def set_scene(self, i): self.k = self.scenes.index(i) if isinstance(i,str) else i
    @property
    def dims(self): return types.SimpleNamespace(T=1, C=2, Z=1+self.k, Y=48, X=64, order='TCZYX')
    def get_image_dask_data(self, order, T, Z, C):
        assert order=='YX'
        return types.SimpleNamespace(compute=lambda scheduler: pixels(48,64, seed=100*self.k+10*Z+C))

@pytest.fixture
def stand_in(monkeypatch):
    monkeypatch.setitem(sys.modules, 'bioio', types.SimpleNamespace(BioImage=Picture))
    for m in ('bioio_nd2','bioio_czi'): monkeypatch.setitem(sys.modules, m, types.SimpleNamespace(Reader=object))

@pytest.mark.parametrize('ext', ['nd2','czi'])
def test_planes_of_a_stand_in(ext, stand_in, tmp_path):
    d = tmp_path/'p'
    d.mkdir()
    for i in range(2): (d/f'U2_{"CPT" if i else "DMSO"}_1h_RGB_000{i}_N1.{ext}').write_bytes(bytes([i]))
    (d/f'U2_CPT_1h_RGB_0003_N1.{ext}').write_bytes(b'broken')
    with pytest.raises(StopWork, match='3 planes'): read_fields(d)
    f = read_fields(d, page=2, channel='GFP')
    assert f.format.unique().tolist()==[ext.upper()] and np.allclose(f.um_per_px,.65) and f.bits.tolist()==[16,16]
    assert 'chunk map not found' in f.attrs['problems'][0]['reason'] and 'export it as TIFF' in f.attrs['problems'][0]['reason']
    t = cut_tiles(f, tmp_path/'t', allow=['duplicates'])
    np.testing.assert_array_equal(t.field(f.field[0]), np.round(pixels(48,64, seed=111)*255./4095))
    (d/f.field[0]).write_bytes(b'other')
    with pytest.warns(UserWarning, match='changed since'): open_tiles(tmp_path/'t')

@pytest.mark.parametrize('ext,what', [('nd2','celldeath_nb.microscopes'),('lif','celldeath_nb.microscopes'),('ome.zarr','celldeath_nb.microscopes'),('czi','bioio-czi'),('vsi','export it as TIFF')])
def test_without_the_plugin(ext, what, tmp_path, monkeypatch):
    for m in ('bioio','bioio_nd2','bioio_lif','bioio_ome_zarr','bioio_czi'): monkeypatch.setitem(sys.modules, m, None)
    p = tmp_path/f'CPT_1.{ext}'
    p.mkdir() if ext.endswith('zarr') else p.write_bytes(b'\1\2\3\4'*50)
    with pytest.raises(BadFile, match=what) as e: read_photo(p)
    assert 'export it as TIFF' in str(e.value)
    with pytest.raises(ValueError, match='0 photographs'): read_fields(tmp_path)

@pytest.mark.skipif(os.name!='posix', reason='needs a POSIX system')
@pytest.mark.parametrize('ext', ['nd2','zarr'])
def test_a_pipe_does_not_hang(ext, stand_in, tmp_path):
    os.mkfifo(tmp_path/f'x.{ext}')
    with pytest.raises(BadFile, match='not an ordinary file'): read_photo(tmp_path/f'x.{ext}')

# ND2 -------------------------------------------------------------------------------------------

def write_nd2(path, a, um=.325, channels=('BF','GFP'), lost=()):
    "A file of Nikon's format, version 3, by its published layout; `a` is uint16 [depth, height, width, channel], and the planes `lost` are not in it."
    kinds = {bool:'bool', int:'lx_int32', float:'double', str:'CLxStringW'}
    def xml(k, v): return f'<{k} runtype="CLxLite">{"".join(xml(*o) for o in v.items())}</{k}>' if isinstance(v,dict) else f'<{k} runtype="{kinds[type(v)]}" value="{v}"/>'
    n,h,w,c = a.shape
    attrs = dict(uiWidth=w, uiWidthBytes=w*c*2, uiHeight=h, uiComp=c, uiBpcInMemory=16, uiBpcSignificant=12, uiSequenceCount=n, eCompression=2)
    planes = {f'a{i}':dict(sDescription=o, uiCompCount=1, uiColor=0, pFluorescentProbe=dict(m_sName='x')) for i,o in enumerate(channels)}
    meta = dict(bCalibrated=True, dCalibration=um, sPicturePlanes=dict(uiCount=c, sPlaneNew=planes))
    loop = dict(eType=4, uLoopPars=dict(uiCount=n, dZLow=0., dZHigh=float(n-1), dZStep=1., dZHome=0., iType=0, bAbsolute=False, bZInverted=False))
    chunks = {'ImageAttributesLV!':xml('variant',attrs).encode(), 'ImageMetadataSeqLV|0!':xml('variant',meta).encode(), **({'ImageMetadataLV!':xml('variant',loop).encode()} if n>1 else {}),
        'CustomData|AcqTimesCache!':np.arange(n, dtype=np.float64).tobytes(), **{f'ImageDataSeq|{k}!':bytes(8)+a[k].tobytes() for k in range(n) if k not in lost}}
    head = lambda name,size,pad: struct.pack('<IIQ', 0x0abeceda, pad, size)+name.ljust(pad, b'\0')
    out,where = head(b'ND2 FILE SIGNATURE CHUNK NAME01!', 64, 32)+b'Ver3.0'.ljust(64, b'\0'),b''
    for k,v in chunks.items():
        where += k.encode()+struct.pack('<QQ', len(out), len(v))
        out += head(k.encode(), len(v), 4072)+v
    end = b'ND2 CHUNK MAP SIGNATURE 0000001!'+struct.pack('<Q', len(out))
    path.write_bytes(out+head(b'ND2 FILEMAP SIGNATURE NAME 0001!', len(where)+40, 32)+where+end)
    return path

@needs('bioio','bioio_nd2')
def test_nd2(tmp_path, capfd):
    a = pixels(3,40,50,2)
    p = write_nd2(tmp_path/'CPT_1.nd2', a)
    with pytest.raises(StopWork, match='3 planes'): read_header(p)
    with pytest.raises(StopWork, match='2 channels .BF, GFP'): read_photo(p, page=1)
    for page in range(3):
        for k,c in dict(BF=0, GFP=1).items():
            ph = read_photo(p, page=page, channel=k)
            np.testing.assert_array_equal(ph.pixels, a[page,:,:,c])
            assert (ph.format,ph.height,ph.width,ph.bits)==('ND2',40,50,16) and ph.um_per_px==pytest.approx(.325)
    t = cut_tiles(read_fields(tmp_path, page=2, channel='BF'), tmp_path.with_name(tmp_path.name+'_t'))
    np.testing.assert_array_equal(t.field('CPT_1.nd2'), np.round(a[2,:,:,0]*255./4095))
    assert capfd.readouterr().err==''

@needs('bioio','bioio_nd2')
def test_nd2_damaged(tmp_path):
    a = pixels(2,40,50,1)
    p = write_nd2(tmp_path/'x.nd2', a, channels=['BF'], lost=[1]) # the reader would give zeros
    np.testing.assert_array_equal(read_photo(p, page=0).pixels, a[0,:,:,0])
    with pytest.raises(BadFile, match='zeros'): read_photo(p, page=1)
    b = write_nd2(p, a, channels=['BF']).read_bytes()
    for cut in (3,100,5000,len(b)//2,len(b)-1):
        p.write_bytes(b[:cut])
        with pytest.raises(BadFile): read_photo(p, page=1)
